"""From token ids to logits in one call: what the model's own code computes, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from millstream.core.plan import Plan
from millstream.model.cpu.kernels import Kernels
from millstream.model.decoder import compiled_ends as shortcut
from millstream.model.decoder.called_operators import OperatorRecorder
from millstream.model.decoder.compiled_ends import Angles
from millstream.model.decoder.runs import DenseBatch
from tests.model.architectures import make_model
from tests.model.compiled_cases import WIDE, FusedModel, Sequence, by_position, mixed

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": 64,
}


class TakenError(Exception):
    pass


def forbid_own_code(model: FusedModel) -> None:
    def forward(*args: Any, **kwargs: Any) -> None:
        raise TakenError

    model.model.forward = forward  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("model_type", "options", "settings"),
    [
        ("llama", {}, {"dtype": "float32"}),
        ("llama", WIDE | {"attention_bias": True}, {"dtype": "bfloat16"}),
        ("llama", WIDE, {"dtype": "bfloat16", "is_native": True}),
        ("llama", WIDE | {"tie_word_embeddings": True}, {"dtype": "bfloat16", "is_native": True}),
        ("llama", {"rope_parameters": LLAMA3}, {"dtype": "bfloat16"}),
        ("llama", {"rope_parameters": YARN}, {"dtype": "float32"}),
        ("qwen3", WIDE, {"dtype": "float32"}),
        (
            "qwen2",
            {"num_key_value_heads": 4, "intermediate_size": 128},
            {"dtype": "bfloat16", "is_native": True, "quantize": "int8"},
        ),
        ("mistral", {}, {"dtype": "bfloat16", "is_native": True}),
        ("smollm3", {}, {"dtype": "float32"}),
        ("phi3", {"partial_rotary_factor": 0.5}, {"dtype": "bfloat16"}),
        ("llama", {"rope_parameters": DYNAMIC}, {"dtype": "float32"}),  # served as far as fixed
    ],
)
def test_it_gives_what_the_model_s_own_code_gives(
    model_type: str,
    options: dict[str, Any],
    settings: dict[str, Any],
    kernels: Kernels,
    tmp_path: Path,
) -> None:
    make_model(model_type, tmp_path, **options)
    is_native = settings.pop("is_native", False)
    chosen = replace(kernels, fast_products=lambda: (is_native, is_native, is_native, True))
    model = FusedModel.load(tmp_path, chosen, **settings)
    plans = mixed(Sequence.all())
    expected = model.run(plans)
    assert model.shorten() is None
    forbid_own_code(model)
    found = model.run(plans)
    assert len(found) == len(expected) > 5
    for got, truth in zip(found, expected, strict=True):
        assert got.isfinite().all()
        assert torch.equal(got, truth)


@pytest.mark.parametrize("score_from", [None, 0, 5, 40])
@pytest.mark.parametrize(
    ("model_type", "options", "settings"),
    [
        ("llama", {}, {"dtype": "float32"}),
        ("llama", {"num_hidden_layers": 1}, {"dtype": "float32"}),
        ("mistral", {"sliding_window": 11}, {"dtype": "bfloat16"}),
        ("qwen3", WIDE, {"dtype": "bfloat16"}),
        (
            "qwen2",
            {"num_key_value_heads": 4, "intermediate_size": 128},
            {"dtype": "bfloat16", "quantize": "int8"},
        ),
    ],
)
def test_the_last_layer_finishes_only_what_is_wanted(
    model_type: str,
    options: dict[str, Any],
    settings: dict[str, Any],
    score_from: int | None,
    kernels: Kernels,
    tmp_path: Path,
) -> None:
    """Chunks of which nothing, the last token, or a part is asked for, beside rows that decode."""
    make_model(model_type, tmp_path, **options)
    is_native = settings["dtype"] == "bfloat16"
    chosen = replace(kernels, fast_products=lambda: (is_native, is_native, is_native, True))
    model = FusedModel.load(tmp_path, chosen, **settings)
    plans = mixed(Sequence.all())
    whole = by_position(plans, model.run(plans))
    assert model.shorten() is None
    forbid_own_code(model)
    asked = [
        Plan(tuple(chunk._replace(score_from=score_from) for chunk in plan.chunks))
        for plan in plans
    ]
    found = by_position(asked, model.run(asked))
    assert len(found) < len(whole) or score_from == 0
    for place, logits in found.items():
        if is_native:
            assert torch.equal(logits, whole[place])
        else:  # torch's product rounds differently with another number of rows
            torch.testing.assert_close(logits, whole[place])


@pytest.mark.parametrize(
    ("model_type", "options", "reason"),
    [
        ("gemma", {}, "it does something else around its layers"),  # scales its embeddings
        ("granite", {"logits_scaling": 3.0}, "it does something else around its layers"),
        ("granite", {"embedding_multiplier": 3.0}, "it does something else around its layers"),
    ],
)
def test_other_models_keep_their_own_code(
    model_type: str, options: dict[str, Any], reason: str, kernels: Kernels, tmp_path: Path
) -> None:
    make_model(model_type, tmp_path, **options)
    model = FusedModel.load(tmp_path, kernels)
    if model.stack is None or model.stack.compiled is None:
        pytest.fail(model.fused.summary)
    plans = mixed(Sequence.all())
    expected = model.run(plans)
    assert model.shorten() == reason
    assert model.forward.shortcut is None
    for got, truth in zip(model.run(plans), expected, strict=True):
        assert torch.equal(got, truth)


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {"rope_parameters": DYNAMIC}),
        ("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 64}),
    ],
)
def test_angles_that_change_with_the_longest_sequence_are_noticed(
    model_type: str, options: dict[str, Any], kernels: Kernels, tmp_path: Path
) -> None:
    make_model(model_type, tmp_path, **options)
    model = FusedModel.load(tmp_path, kernels)
    assert model.max_context in (64, 256)  # where they do not change yet
    assert model.shorten() is None
    assert model.shorten(max_context=1000) == "its positions depend on each other"


def test_layers_that_python_calls_take_no_shortcut(kernels: Kernels, tmp_path: Path) -> None:
    make_model("llama", tmp_path)
    model = FusedModel.load(tmp_path, kernels)
    assert model.stack is not None
    model.stack.compiled = None
    assert model.shorten() == "its layers are called from Python"


@torch.inference_mode()
def test_batches_of_others_take_no_shortcut(kernels: Kernels, tmp_path: Path) -> None:
    make_model("llama", tmp_path)
    model = FusedModel.load(tmp_path, kernels)
    assert model.fused.comparison is not None
    sample = model.fused.comparison.sample
    expected = sample.run(model.forward, DenseBatch(OperatorRecorder()))
    assert model.shorten() is None
    assert torch.equal(sample.run(model.forward, DenseBatch(OperatorRecorder())), expected)


def test_angles_are_computed_as_sequences_grow(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("llama", tmp_path)
    model = FusedModel.load(tmp_path, kernels)
    plans = mixed(Sequence.all())
    expected = model.run(plans)
    monkeypatch.setattr(shortcut, "NUM_FIRST_ANGLES", 16)
    assert model.shorten() is None
    forbid_own_code(model)
    for got, truth in zip(model.run(plans), expected, strict=True):
        assert torch.equal(got, truth)


class Rotary(torch.nn.Module):
    """Angles that show their position. calls: how many positions each call was asked for."""

    def __init__(self, *, is_dynamic: bool = False) -> None:
        super().__init__()
        self.calls: list[int] = []
        self._is_dynamic = is_dynamic

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append(position_ids.shape[1])
        numbers = position_ids.unsqueeze(-1).float()
        if self._is_dynamic:
            numbers = numbers / position_ids.max().clamp_min(1)
        return numbers.expand(-1, -1, 2), -numbers.expand(-1, -1, 2)


def test_a_table_of_angles_doubles_up_to_the_longest_context() -> None:
    rotary = Rotary()
    angles = Angles(rotary, torch.zeros(1), max_context=10_000)
    sizes = []
    for end in (1, 4096, 4097, 5000, 8193, 10_000, 10_016):
        cos, sin = angles.upto(end)
        sizes.append(len(cos))
        assert torch.equal(cos[:, 0], torch.arange(len(cos)).float())
        assert torch.equal(sin, -cos)
    assert sizes == [4096, 4096, 8192, 8192, 10_000, 10_000, 10_000]
    assert rotary.calls == [4096, 8192, 10_000]
    assert len(Angles(Rotary(), torch.zeros(1), max_context=100).upto(112)[0]) == 100


@pytest.mark.parametrize("max_context", [1, 2, 100, 128])
def test_angles_that_depend_on_others_are_noticed(max_context: int) -> None:
    assert Angles(Rotary(), torch.zeros(1), max_context=max_context).are_fixed()
    dynamic = Angles(Rotary(is_dynamic=True), torch.zeros(1), max_context=max_context)
    assert dynamic.are_fixed() == (max_context < 3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_that_samples_nothing_has_no_logits(
    dtype: str, kernels: Kernels, tmp_path: Path
) -> None:
    make_model("llama", tmp_path)
    fast = replace(kernels, fast_products=lambda: (True, True, True, True))
    model = FusedModel.load(tmp_path, fast, dtype=dtype)
    chunk = Sequence.all()[3].chunk(0, 20)._replace(score_from=None)
    assert not chunk.is_last
    (expected,) = model.run([Plan((chunk,))])
    assert model.shorten() is None
    (found,) = model.run([Plan((chunk,))])
    assert found.shape == expected.shape
    assert found.shape[0] == 0


def test_what_does_not_fit_is_an_error(kernels: Kernels, tmp_path: Path) -> None:
    make_model("llama", tmp_path)
    model = FusedModel.load(tmp_path, kernels)
    assert model.stack is not None
    assert model.stack.compiled is not None
    plan = Plan((Sequence.all()[0].chunk(0, 5),))
    given = model.packer().pack(plan)
    angles = torch.ones(4, 16), torch.zeros(4, 16)
    logits = partial(
        model.stack.compiled.logits,
        given.input_ids[0],
        given.positions[0],
        rows=given.wanted,
        angles=angles,
        step=given.batch.step,
        cache=given.batch.cache,
    )
    with pytest.raises(RuntimeError, match="only the layers are known"):
        logits()
    assert model.shorten() is None
    with pytest.raises(RuntimeError, match="there is no row 4"):
        logits()
    ids = torch.tensor([0, 1, 2, 10**6, 4])
    with pytest.raises(RuntimeError, match="there is no row 1000000"):
        model.forward(ids[None], given.positions, rows=given.wanted, batch=given.batch)
    rows = torch.tensor([-1])
    with pytest.raises(RuntimeError, match="there is no row -1"):
        model.forward(given.input_ids, given.positions, rows=rows, batch=given.batch)
    assert model.run([plan])[0].isfinite().all()
