"""All decoder layers in one compiled call: what Python computes layer by layer, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from millstream.model.attention import LayerOptions
from millstream.model.cpu.kernels import Kernels, plain
from millstream.model.decoder import compiled_layers as compiling
from millstream.model.decoder.compiled_layers import compiled
from tests.model.architectures import make_model
from tests.model.compiled_cases import WIDE, FusedModel, Sequence, by_position, mixed

MODELS = [
    ("llama", {}),
    ("llama", WIDE | {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"hidden_act": "gelu_pytorch_tanh", "num_hidden_layers": 1}),
    ("qwen3", WIDE),  # norms of queries and keys, windows in some layers
    ("gemma", {"num_key_value_heads": 1}),  # unit offsets, gelu
    ("mistral", {}),  # a window
    ("smollm3", {}),  # layers without rotary positions
    ("phi3", {"partial_rotary_factor": 0.5}),
]


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert len(actual) == len(expected) > 5
    for got, truth in zip(actual, expected, strict=True):
        assert got.isfinite().all()
        assert torch.equal(got, truth)


def onednn(kernels: Kernels) -> Kernels:
    return replace(kernels, fast_products=lambda: (False, False, False, False))


def native(kernels: Kernels) -> Kernels:
    return replace(kernels, fast_products=lambda: (True, True, True, True))


@pytest.mark.parametrize(("dtype", "is_native"), [("float32", 0), ("bfloat16", 0), ("bfloat16", 1)])
@pytest.mark.parametrize(("model_type", "options"), MODELS)
def test_it_gives_what_python_gives(
    model_type: str,
    options: dict[str, Any],
    dtype: str,
    is_native: int,
    kernels: Kernels,
    tmp_path: Path,
) -> None:
    make_model(model_type, tmp_path, **options)
    chosen = native(kernels) if is_native else onednn(kernels)
    model = FusedModel.load(tmp_path, chosen, dtype=dtype)
    assert model.fused.summary.endswith("decoder layers as one, in one call")
    assert model.fused.is_whole == bool(is_native)
    plans = mixed(Sequence.all())
    assert_same(model.run(plans), model.run_from_python(plans))


@pytest.mark.parametrize("scheme", ["int8", "int4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_quantised_layers_are_merged_and_run_in_one_call(
    dtype: str, scheme: str, kernels: Kernels, tmp_path: Path
) -> None:
    make_model("qwen2", tmp_path, num_key_value_heads=4, intermediate_size=128)
    model = FusedModel.load(tmp_path, native(kernels), dtype=dtype, quantize=scheme)
    assert model.fused.summary.endswith("in one call")
    assert model.fused.is_whole
    plans = mixed(Sequence.all())
    assert_same(model.run(plans), model.run_from_python(plans))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "options",
    [
        {"sinks": torch.linspace(-2, 6, 4)},
        {"softcap": 0.5},
        {"scale": 1.0},
        {"window": 3},
        {"window": 9, "sinks": torch.linspace(-2, 6, 4).bfloat16(), "softcap": 2.0},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_of_attention(
    options: dict[str, Any], dtype: str, kernels: Kernels, tmp_path: Path
) -> None:
    make_model("llama", tmp_path, **WIDE)
    model = FusedModel.load(tmp_path, kernels, dtype=dtype)
    assert model.stack is not None
    plans = mixed(Sequence.all())
    before = model.run(plans)
    changed = replace(model.stack.layers[1], options=changed_options(model, **options))
    model.stack.layers = [model.stack.layers[0], changed, *model.stack.layers[2:]]
    model.stack.compiled = compiled(model.stack.layers, kernels)
    after = model.run(plans)
    assert_same(after, model.run_from_python(plans))
    assert not torch.equal(after[-1], before[-1])


def changed_options(model: FusedModel, **options: Any) -> LayerOptions:
    assert model.stack is not None
    return replace(model.stack.layers[1].options, **options)


@pytest.mark.parametrize(
    ("model_type", "options", "settings", "reason"),
    [
        ("qwen3_moe", {}, {}, "another MLP"),
        ("llama", {"hidden_act": "relu"}, {}, "another MLP"),
        ("llama", {}, {"quantize": "int8"}, "linear layers that cannot be merged"),
        ("llama", {}, {"quantize": "int4"}, "linear layers that cannot be merged"),
    ],
)
def test_other_stacks_are_called_from_python(
    model_type: str,
    options: dict[str, Any],
    settings: dict[str, Any],
    reason: str,
    kernels: Kernels,
    tmp_path: Path,
) -> None:
    make_model(model_type, tmp_path, **options)
    model = FusedModel.load(tmp_path, kernels, dtype="bfloat16", **settings)
    assert model.fused.summary.endswith(f"decoder layers as one, called from Python: {reason}")
    assert not model.fused.is_whole
    assert all(rows.isfinite().all() for rows in model.run(mixed(Sequence.all())))


def test_kernels_in_plain_torch_have_no_decoder(kernels: Kernels, tmp_path: Path) -> None:
    make_model("llama", tmp_path)
    slow = FusedModel.load(tmp_path, plain())
    assert slow.fused.summary.endswith("called from Python: kernels in plain torch")
    plans = mixed(Sequence.all())
    fast = FusedModel.load(tmp_path, kernels).run(plans)
    for got, truth in zip(fast, slow.run(plans), strict=True):
        torch.testing.assert_close(got, truth, rtol=1e-3, atol=1e-3)


def wrong_norm(module: Any, kernels: Kernels) -> Any:
    return kernels.classes.Norm(module.weight * 1.5, module.eps, module.unit_offset)


def wrong_weight(linear: Any, kernels: Kernels) -> Any:
    return plain_linear(linear.weight.detach().flip(0), kernels)


def wrong_size(linear: Any, kernels: Kernels) -> Any:
    return plain_linear(linear.weight.detach()[:-2], kernels)


def plain_linear(weight: Tensor, kernels: Kernels) -> Any:
    return kernels.classes.Linear(weight, len(weight), None, None, None)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("made_norm", wrong_norm, "it computes something else"),
        ("made_linear", wrong_weight, "it computes something else"),
        ("made_linear", wrong_size, "RuntimeError: shape"),
    ],
)
def test_a_decoder_that_is_wrong_is_dropped(
    name: str,
    change: Any,
    reason: str,
    kernels: Kernels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_model("llama", tmp_path)
    plans = mixed(Sequence.all())
    expected = FusedModel.load(tmp_path, kernels).run(plans)
    monkeypatch.setattr(compiling, name, change)
    model = FusedModel.load(tmp_path, kernels)
    assert f"called from Python: {reason}" in model.fused.summary
    assert model.stack is not None
    assert model.stack.compiled is None
    assert_same(model.run(plans), expected)


@pytest.mark.parametrize("gate", ["silu", "gelu_tanh"])
def test_a_decoder_with_another_gate_is_dropped(
    gate: str, kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("llama", tmp_path, hidden_act="silu" if gate == "gelu_tanh" else "gelu_pytorch_tanh")

    class Other:
        def __init__(self) -> None:
            self._decoder = kernels.classes.Decoder()
            self.run = self._decoder.run

        def add_layer(self, *parts: Any) -> None:
            self._decoder.add_layer(*parts[:-2], gate, parts[-1])

    class Classes:
        Norm, Linear, Decoder = kernels.classes.Norm, kernels.classes.Linear, Other

    model = FusedModel.load(tmp_path, replace(kernels, classes=Classes))
    assert model.fused.summary.endswith("called from Python: it computes something else")


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_a_row_does_not_depend_on_its_neighbours(
    quantize: str, kernels: Kernels, tmp_path: Path
) -> None:
    """Contract 2, bit for bit: alone, in other chunks, on any number of anybody's threads."""
    make_model("qwen3", tmp_path, **WIDE | {"num_key_value_heads": 4, "intermediate_size": 320})
    model = FusedModel.load(tmp_path, native(kernels), dtype="bfloat16", quantize=quantize)
    assert model.fused.is_whole
    sequences = Sequence.all((5, 17, 30, 61, 33, 2, 12))
    plans = mixed(sequences)
    together = by_position(plans, model.run(plans))
    assert len(together) > 180
    for sequence in sequences:
        for size in (20, 200):
            plans_alone = mixed([sequence], size)
            for place, row in by_position(plans_alone, model.run(plans_alone)).items():
                assert torch.equal(row, together[place]), (place, size)
    threads = torch.get_num_threads()
    try:
        for count, whose in [(1, -1), (2, -1), (3, 0), (4, -1), (4, 0), (7, 0), (1, 7), (2, 3)]:
            torch.set_num_threads(count)
            kernels.use_threads(whose)
            found = by_position(plans, model.run(plans))
            assert all(torch.equal(row, together[place]) for place, row in found.items())
    finally:
        torch.set_num_threads(threads)
        kernels.use_threads(-1)
