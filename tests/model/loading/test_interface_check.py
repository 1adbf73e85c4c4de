"""Whether a model attends through transformers' interface is asked of the model, not its class."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from millstream.errors import StartupError
from millstream.model.loading.interface_check import require_replaceable_attention
from tests.model.architectures import greedy, make_model
from tests.model.small_configs import small_config
from tests.model.test_architectures import answers, greedy_request, make_runner, random_prompts


def check(model_type: str) -> None:
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(small_config(model_type))
    before = skeleton.config._attn_implementation
    try:
        require_replaceable_attention(skeleton)
    finally:
        assert skeleton.config._attn_implementation == before


@pytest.mark.parametrize("model_type", ["llama", "biogpt", "jamba", "llama4", "mamba"])
def test_a_skeleton_that_attends_through_the_interface_or_not_at_all_passes(
    model_type: str,
) -> None:
    check(model_type)


def test_a_skeleton_that_never_calls_it_is_refused_with_what_computes() -> None:
    with pytest.raises(StartupError, match="computed in BloomAttention"):
        check("bloom")


def test_flags_of_the_class_are_hints_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class may neither declare the interface nor look like one that uses it, and still do."""
    model = make_model("llama", tmp_path)
    prompts = random_prompts(2, seed=1, longest=40)
    expected = {i: greedy(model, prompt, 8) for i, prompt in enumerate(prompts)}
    monkeypatch.setattr(LlamaForCausalLM, "_supports_attention_backend", False)
    monkeypatch.setattr(LlamaForCausalLM, "_can_set_attn_implementation", lambda: False)
    runner = make_runner(tmp_path, device="cpu")
    requests = [greedy_request(i, prompt, 8) for i, prompt in enumerate(prompts)]
    assert answers(runner, requests, max_step_tokens=24) == expected
