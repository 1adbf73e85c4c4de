"""The context that a model's config allows, and positions that reach so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PretrainedConfig

from millstream.errors import StartupError
from millstream.model.loading.context import fix_positions, max_context
from tests.model.architectures import greedy, make_model, random_model
from tests.model.small_configs import small_config
from tests.model.test_architectures import answers, greedy_request, make_runner, random_prompts

STATED = 64
HALF = 8  # of a head's width in the small models
LINEAR = {"rope_type": "linear", "factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": STATED}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": STATED,
}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0] * HALF,
    "long_factor": [3.0] * HALF,
    "factor": 4.0,
    "original_max_position_embeddings": STATED,
}
PLAIN = {"rope_type": "default"}
UNKNOWN = {"rope_type": "default", "factor": 4.0}


def config_with(stated: int, rope: dict[str, Any]) -> PretrainedConfig:
    """Set last, so that what a config adds of itself is not there."""
    config = small_config("llama", max_position_embeddings=stated)
    config.rope_parameters = rope
    return config


@pytest.mark.parametrize(
    ("stated", "rope", "by_default", "at_most"),
    [
        (64, PLAIN, 64, 64),
        (64, UNKNOWN, 64, 64),
        (64, LINEAR, 256, 256),
        (64, YARN, 256, 256),
        (80, YARN, 256, 256),  # as the configs of Qwen3, which state room for an answer too
        (256, YARN, 256, 256),  # as those of DeepSeek and gpt-oss
        (64, LLAMA3, 256, 256),
        (128, LLAMA3, 128, 128),  # as those of Llama 3.2
        (64, DYNAMIC, 64, 256),
        (64, LONG, 64, 256),
        (256, LONG, 64, 256),
        (256, {"full_attention": LINEAR, "sliding_attention": PLAIN}, 256, 256),  # as Gemma 3
        (64, {"full_attention": YARN, "sliding_attention": PLAIN}, 256, 256),
        (256, {"full_attention": LONG, "sliding_attention": PLAIN}, 64, 256),
        (64, {"type": "linear", "factor": 2.0}, 128, 128),  # as old configs spell it
    ],
)
def test_a_context_reaches_as_far_as_its_positions(
    stated: int, rope: dict[str, Any], by_default: int, at_most: int
) -> None:
    config = config_with(stated, rope)
    assert max_context(config, None) == by_default
    assert max_context(config, at_most) == at_most
    assert max_context(config, 10) == 10
    with pytest.raises(StartupError, match=f"--max-total-tokens: .* {at_most} tokens"):
        max_context(config, at_most + 1)


@pytest.mark.parametrize("rope", [LINEAR, YARN, LLAMA3, LONG], ids=lambda r: str(r["rope_type"]))
def test_long_requests_equal_generate(rope: dict[str, Any], tmp_path: Path) -> None:
    model = make_model("llama", tmp_path, max_position_embeddings=STATED, rope_parameters=rope)
    prompts = [random_prompts(1, seed=seed, longest=3)[0] * 50 for seed in (1, 2)]
    expected = {index: greedy(model, prompt, 24) for index, prompt in enumerate(prompts)}
    runner = make_runner(tmp_path, max_total_tokens=200)
    assert runner.info.max_context == 200
    requests = [greedy_request(index, prompt, 24) for index, prompt in enumerate(prompts)]
    assert answers(runner, requests, max_step_tokens=64) == expected


@torch.inference_mode()
def test_positions_that_change_are_those_of_the_longest_sequence(tmp_path: Path) -> None:
    model = make_model("llama", tmp_path, max_position_embeddings=STATED, rope_parameters=DYNAMIC)
    (start,) = random_prompts(1, seed=3, longest=3)
    long, short = (*start * 67,)[:199], start
    logits = model(input_ids=torch.tensor([[*long, 1]]), use_cache=False).logits
    runner = make_runner(tmp_path, max_total_tokens=200)
    alone = answers(runner, [greedy_request(1, short, 16)], max_step_tokens=64)
    requests = [greedy_request(0, long, 1), greedy_request(1, short, 16)]
    together = answers(make_runner(tmp_path, max_total_tokens=200), requests, max_step_tokens=64)
    assert together == {0: [int(logits[0, 198].argmax())], **alone}


def test_positions_are_fixed_without_touching_the_owners_tensors() -> None:
    rope = {"full_attention": {**LONG, "rope_theta": 1e4}, "sliding_attention": PLAIN}
    model = random_model("gemma3_text", max_position_embeddings=256, rope_parameters=rope)
    rotary = model.model.rotary_emb
    before = rotary.full_attention_inv_freq
    kept = before.clone()
    fix_positions(model, STATED)
    assert rotary.full_attention_inv_freq is before
    fix_positions(model, 200)
    assert torch.equal(before, kept)
    assert torch.allclose(rotary.full_attention_inv_freq * 3, kept)
    assert rotary.rope_type == {"full_attention": "default", "sliding_attention": "default"}


def test_a_model_that_cannot_be_fixed_is_refused() -> None:
    model = random_model("llama", max_position_embeddings=STATED)
    model.config.rope_parameters = DYNAMIC
    with pytest.raises(StartupError, match="--max-total-tokens: the positions of LlamaForCausalLM"):
        fix_positions(model, 200)
