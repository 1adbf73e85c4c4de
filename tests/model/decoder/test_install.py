"""Models run by kernels and merged linears answer as transformers' own modules do."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from millstream.core.plan import Chunk, Plan
from millstream.model.build import build_runner
from millstream.model.decoder.stack import DecoderStack
from millstream.model.loading.model import LoadedModel, load_model
from millstream.settings import Settings
from tests.model.architectures import greedy, make_model
from tests.model.test_architectures import answers, greedy_request, make_runner, random_prompts

pytestmark = pytest.mark.usefixtures("kernels")


def load(folder: Path, **options: Any) -> tuple[LoadedModel, Settings]:
    settings = Settings(model_id=str(folder), native_kernels="on", block_size=8, **options)
    return load_model(folder, settings), settings


def has_stack(loaded: LoadedModel) -> bool:
    return any(isinstance(module, DecoderStack) for module in loaded.model.modules())


def check_answers(model: Any, folder: Path, *, is_stack: bool) -> None:
    loaded, settings = load(folder)
    runner = build_runner(loaded, settings)
    assert has_stack(loaded) == is_stack
    prompts = random_prompts(4, seed=1)
    expected = {index: greedy(model, prompt, 24) for index, prompt in enumerate(prompts)}
    requests = [greedy_request(index, prompt, 24) for index, prompt in enumerate(prompts)]
    assert answers(runner, requests, max_step_tokens=32) == expected


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"hidden_act": "gelu_pytorch_tanh"}),
        ("llama", {"hidden_act": "relu"}),  # the layers by kernels, the MLPs by themselves
        ("llama", {"num_key_value_heads": 4}),
        ("qwen2", {}),
        ("qwen3_moe", {}),
        ("smollm3", {}),  # layers without rotary positions
        ("phi3", {"partial_rotary_factor": 0.5}),
        ("granite", {}),
        ("gemma", {}),
    ],
)
def test_usual_layers_run_as_one(model_type: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = make_model(model_type, tmp_path, **options)
    check_answers(model, tmp_path, is_stack=True)


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("granite", {"residual_multiplier": 0.5}),
        ("olmo", {"clip_qkv": 1e4}),
        ("olmo2", {}),
        ("olmoe", {}),
        ("ministral3", {}),  # queries grow with the position
        ("ernie4_5", {}),  # rotates neighbours, not halves
        ("gemma2", {}),
        ("gemma3_text", {}),
        ("glm4", {}),
        ("hunyuan_v1_dense", {}),  # norms after rotation
        ("gpt2", {}),
    ],
)
def test_other_layers_run_one_by_one(
    model_type: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = make_model(model_type, tmp_path, **options)
    check_answers(model, tmp_path, is_stack=False)


Change = Callable[[Tensor, Tensor], Tensor]


# In bfloat16 the comparison of logits alone would not show any of these.
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda before, after: after.clamp(-1e4, 1e4), "its layers call aten::clamp"),
        (lambda before, after: after * 1.01, "put their parts together otherwise"),
        (lambda before, after: after + 0.01 * before, "put their parts together otherwise"),
    ],
    ids=["clamp that is not reached", "scaled", "more residual"],
)
def test_layers_that_do_more_are_noticed(
    change: Change,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_model("llama", tmp_path)
    real = LlamaDecoderLayer.forward

    def forward(self: LlamaDecoderLayer, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        return change(hidden_states, real(self, hidden_states, **kwargs))

    monkeypatch.setattr(LlamaDecoderLayer, "forward", forward)
    loaded, settings = load(tmp_path, dtype="bfloat16")
    with caplog.at_level("INFO"):
        build_runner(loaded, settings)
    assert not has_stack(loaded)
    assert reason in caplog.text


def test_another_rotation_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_model("llama", tmp_path)
    real = modeling_llama.apply_rotary_pos_emb

    def backwards(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        turned: tuple[Tensor, Tensor] = real(q, k, cos, -sin)
        return turned

    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", backwards)
    loaded, settings = load(tmp_path)
    with caplog.at_level("INFO"):
        build_runner(loaded, settings)
    assert "its positions are encoded otherwise" in caplog.text


@pytest.mark.parametrize("failure", [IndexError("layers[1]"), None], ids=["raises", "wrong"])
def test_a_model_that_does_not_run_as_a_stack_gets_its_layers_back(
    failure: Exception | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("llama", tmp_path)

    def forward(self: DecoderStack, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        if failure is not None:
            raise failure
        return hidden_states

    monkeypatch.setattr(DecoderStack, "forward", forward)
    check_answers(model, tmp_path, is_stack=False)


@pytest.mark.parametrize(
    ("model_type", "merged"),
    [
        ("llama", ["0.self_attn.k_proj", "0.mlp.up_proj", "3.self_attn.v_proj"]),
        ("gemma2", ["0.mlp.up_proj", "3.mlp.gate_proj"]),
    ],
)
def test_weights_are_not_held_twice(model_type: str, merged: list[str], tmp_path: Path) -> None:
    make_model(model_type, tmp_path)
    loaded, settings = load(tmp_path)
    layers = loaded.model.model.layers
    weights = [weakref.ref(layers.get_submodule(name).weight) for name in merged]
    del layers
    runner = build_runner(loaded, settings)
    gc.collect()
    assert [weight() for weight in weights] == [None] * len(merged)
    assert runner.info.num_parameters > 0


def test_in_bfloat16_the_logits_differ_by_rounding_only(tmp_path: Path) -> None:
    make_model("qwen3", tmp_path, attention_bias=True)
    prompt = random_prompts(1, seed=4)[0]
    table = list(range(len(prompt) // 8 + 1))[::-1]
    chunk = Chunk(greedy_request(1, prompt, 1), prompt, 0, table, list(prompt), is_last=True)
    fused, plain = (
        make_runner(tmp_path, block_size=8, dtype="bfloat16", native_kernels=kernels)
        .logits(Plan((chunk,)))
        .float()
        for kernels in ("on", "off")
    )
    assert (fused - plain).square().mean().sqrt() < 0.03 * plain.std()


def test_a_shared_model_is_left_as_it_is(tmp_path: Path) -> None:
    make_model("llama", tmp_path)
    loaded, settings = load(tmp_path)
    shared = LoadedModel(
        **{name: getattr(loaded, name) for name in loaded.__slots__} | {"is_shared": True}
    )
    build_runner(shared, settings)
    assert not has_stack(shared)
    assert shared.model.model.layers[0].mlp.up_proj.weight is not None
