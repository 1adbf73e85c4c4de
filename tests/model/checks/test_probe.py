"""What a short comparison cannot see is found out at start, and refused or obeyed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AttentionInterface
from transformers.masking_utils import (
    chunked_causal_mask_function,
    sliding_window_causal_mask_function,
)
from transformers.models.llama import modeling_llama

from millstream.errors import StartupError
from millstream.model.attention import Reach, register
from millstream.model.checks.mask_reach import find_reach
from millstream.model.checks.probe import ProbedLayer, probe_layers
from millstream.model.loading.context import max_context
from tests.model.architectures import greedy, make_model
from tests.model.small_configs import WINDOW, small_config
from tests.model.test_architectures import answers, greedy_request, make_runner, random_prompts

# All of these lie beyond the tokens that `verify` compares.
CONTEXT = 256


def probe(
    model_type: str, folder: Path, *, context: int = CONTEXT, **config: Any
) -> list[ProbedLayer]:
    model = make_model(model_type, folder, **config)
    layers = probe_layers(model, max_context=context, device=torch.device("cpu"))
    return [layers[index] for index in range(len(layers))]


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(StartupError) as caught:
        make_runner(folder, device="cpu", **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_windows_are_read_from_the_masks(tmp_path: Path) -> None:
    assert [layer.reach.window for layer in probe("llama", tmp_path)] == [None] * 4
    assert [layer.reach.window for layer in probe("mistral", tmp_path)] == [WINDOW] * 4
    assert [layer.reach.window for layer in probe("gemma2", tmp_path)] == [WINDOW, None] * 2


def test_a_window_that_only_the_mask_knows(tmp_path: Path) -> None:
    """Phi-MoE's attention is not told its window."""
    assert [layer.reach.window for layer in probe("phimoe", tmp_path)] == [WINDOW] * 4


def test_a_window_as_long_as_the_context_is_none(tmp_path: Path) -> None:
    assert [layer.reach.window for layer in probe("mistral", tmp_path, context=WINDOW)] == [
        None
    ] * 4


def test_a_configured_window_that_is_switched_off(tmp_path: Path) -> None:
    layers = probe("qwen2", tmp_path, use_sliding_window=False, sliding_window=WINDOW)
    assert [layer.reach.window for layer in layers] == [None] * 4


def test_values_narrower_than_keys(tmp_path: Path) -> None:
    shapes = {layer.shape for layer in probe("deepseek_v3", tmp_path)}
    assert {(shape.kv_heads, shape.key_dim, shape.value_dim) for shape in shapes} == {(4, 24, 12)}


def test_chunks_are_read_from_the_masks(tmp_path: Path) -> None:
    reaches = [layer.reach for layer in probe("llama4_text", tmp_path)]
    assert reaches == [Reach(chunk=WINDOW), Reach()] * 2
    reaches = [layer.reach for layer in probe("llama4_text", tmp_path, context=WINDOW)]
    assert reaches == [Reach()] * 4


@pytest.mark.parametrize("context", [2, 7, 31, 256, 1000])
def test_every_reach_is_told_from_the_others(context: int) -> None:
    device = torch.device("cpu")
    for size in (1, 2, 3, 16, 24, 127, 128, 129, 255, 600):
        all_seen = Reach() if size >= context else None
        window = find_reach(sliding_window_causal_mask_function(size), context, device)
        assert window == (all_seen or Reach(window=size))
        none_left = torch.zeros(1, dtype=torch.int)
        chunk = find_reach(chunked_causal_mask_function(size, none_left), context, device)
        # Of one token, or one and another, both see the same.
        assert chunk in ((all_seen,) if all_seen else (Reach(chunk=size), Reach(window=1)))
        assert chunk.window is None or size == 1
    with pytest.raises(StartupError, match="neither full nor"):
        find_reach(lambda b, h, q, k: (k <= q) & (k % 3 != 1), 40, device)


def test_positions_counted_by_the_cache_are_told_for_each_row(tmp_path: Path) -> None:
    """Llama 4 scales the queries of layers without rotary positions by its cache's length."""
    options = {"floor_scale": 4, "attn_scale": 4.0, "no_rope_layers": [1, 0] * 2}
    layers = probe("llama4_text", tmp_path, **options)
    assert all(layer.counts_by_cache for layer in layers)
    assert not any(layer.counts_by_cache for layer in probe("llama4_text", tmp_path))
    model = make_model("llama4_text", tmp_path, **options)
    prompts = random_prompts(4, seed=2, longest=90)
    expected = {i: greedy(model, prompt, 16) for i, prompt in enumerate(prompts)}
    requests = [greedy_request(i, prompt, 16) for i, prompt in enumerate(prompts)]
    runner = make_runner(tmp_path, device="cpu", block_size=8)
    assert answers(runner, requests, max_step_tokens=24) == expected


def test_positions_counted_by_the_cache_of_all_rows_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that takes one number for all rows cannot be told each row's."""
    make_model("llama", tmp_path)
    real = modeling_llama.LlamaAttention.forward

    def counting(self: Any, hidden_states: Any, past_key_values: Any = None, **rest: Any) -> Any:
        past = 0 if past_key_values is None else past_key_values.get_seq_length(self.layer_idx)
        share = int(torch.as_tensor(past).max()) / CONTEXT
        return real(self, hidden_states * (1 + share), **rest)

    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", counting)
    assert "length of its cache" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("model_type", "config", "reason"),
    [
        ("bert", {"is_decoder": False}, "is not causal"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "is not causal"),
        ("doge", {}, "does not use the causal mask"),
        ("deepseek_v32", {}, "'indices'"),
        ("moshi", {}, "sliding window that its cache keeps"),
        ("diffllama", {}, "not numbered one by one"),
        ("nemotron_h", {}, "computes a single token otherwise"),
        ("minimax", {}, "no cache but one of a class of its own"),
        ("nemotron", {}, "does not pass its arguments"),
        ("recurrent_gemma", {}, "keep a state by the interface"),
        ("stablelm", {}, "does not pass its arguments"),
        ("bloom", {}, "computed in BloomAttention"),
        ("gptj", {}, "cannot run on a paged cache"),
        ("falcon", {}, "computed in FalconAttention"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_sentence(
    model_type: str, config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    make_model(model_type, tmp_path, **config)
    assert reason in refusal(tmp_path)


def test_a_mask_that_depends_on_the_tokens_is_refused(tmp_path: Path) -> None:
    """The whole model; of one in files the text half is loaded, whose masks do not."""
    with pytest.raises(StartupError, match="depends on the tokens"):
        probe("gemma4_unified", tmp_path)


def test_an_unknown_argument_of_attention_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bias learned for far positions may change next to nothing in a short comparison."""
    real = modeling_llama.LlamaAttention.forward

    def biased(self: Any, *args: Any, **kwargs: Any) -> Any:
        return real(self, *args, position_bias=torch.zeros(1), **kwargs)

    make_model("llama", tmp_path)
    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", biased)
    assert "'position_bias'" in refusal(tmp_path)


@pytest.mark.parametrize("error", [TypeError, IndexError, NotImplementedError, AssertionError])
def test_what_model_code_raises_becomes_a_refusal(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise error("no\nsuch thing")

    make_model("llama", tmp_path)
    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", broken)
    message = refusal(tmp_path)
    assert (
        f"LlamaForCausalLM cannot run on a paged cache ({error.__name__}: no such thing)" in message
    )


def test_a_mask_made_by_the_model_is_refused_when_served(tmp_path: Path) -> None:
    model = make_model("llama", tmp_path)
    register()
    attend = AttentionInterface()["millstream"]
    states = torch.zeros(1, 4, 2, 16)
    with pytest.raises(StartupError, match="masks of its own"):
        attend(model.model.layers[0].self_attn, states, states, states, torch.ones(1, 1, 2, 2))


def test_rope_that_grows_with_the_context_limits_it() -> None:
    """Also where the parameters of rope are nested by kind of layer."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    rope["original_max_position_embeddings"] = 100
    config = small_config("llama", rope_parameters=rope)
    assert max_context(config, None) == 100
    plain = {"rope_type": "default", "rope_theta": 1e4}
    config.rope_parameters = {"full_attention": rope, "sliding_attention": plain}
    assert max_context(config, None) == 100
