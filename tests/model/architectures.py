"""Tiny random models of many architectures, made with weights large enough to matter.

Default initialisation gives logits so flat that argmax hardly depends on attention; here every
matrix is scaled up, so that a wrong key, position or mask changes the answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.model.small_configs import VOCAB as VOCAB
from tests.model.small_configs import small_config

_ROUNDING = 1e-4  # of the logits' spread

# Those that most people run, and one of each kind of attention: sliding windows (alone, mixed with
# full attention, or in the mask only), chunks, soft caps, sinks, values narrower than keys, learned
# positions, layers without rotary positions, modules that attend for several layers.
# `test_model_types` runs all others, shorter.
ARCHITECTURES = (
    *("llama", "mistral", "mixtral", "ministral3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
    *("gemma2", "gemma3_text", "gemma3n_text", "gpt_oss", "phi", "phi3", "phimoe"),
    *("deepseek_v2", "deepseek_v3", "glm4", "glm4_moe", "ernie4_5", "hunyuan_v1_dense"),
    *("seed_oss", "smollm3", "granite", "granitemoe", "cohere2", "exaone4", "olmo2", "olmo3"),
    *("olmoe", "gpt2", "gpt_neox", "opt", "starcoder2", "llama4_text", "hrm_text"),
)

# Those whose layers keep states: gated delta rules, short convolutions, Mamba 1 and 2, alone, in
# turns with attention and beside it in one layer.
STATEFUL = (
    *("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "olmo_hybrid", "kimi_linear"),
    *("bailing_hybrid", "lfm2", "lfm2_moe", "lfm3", "zaya", "falcon_h1", "bamba"),
    *("granitemoehybrid", "jamba", "zamba", "mamba", "mamba2", "falcon_mamba"),
)


def make_model(
    model_type: str, folder: Path, *, seed: int = 0, **overrides: Any
) -> PreTrainedModel:
    """Saves a tiny float32 model in `folder` and returns it."""
    model = random_model(model_type, seed=seed, **overrides)
    model.save_pretrained(folder)
    return model


def random_model(model_type: str, *, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A tiny float32 model; no token ends its answers, unless the overrides name one."""
    no_ends = {"bos_token_id": None, "eos_token_id": None}
    config = small_config(model_type, **no_ends | overrides)
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomise(model, seed=seed)
    return model


def randomise(model: PreTrainedModel, *, seed: int, gain: float = 1.5) -> None:
    """Draws every matrix large, and leaves the model in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                spread = gain * parameter.shape[-1] ** -0.5
                parameter.normal_(0.0, spread, generator=generator)
    model.eval()


def greedy(model: PreTrainedModel, prompt: tuple[int, ...], max_tokens: int) -> list[int]:
    """What transformers' own generate answers, with its own attention and cache."""
    ids = torch.tensor([prompt], device=model.device)
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    answer: list[int] = output[0, len(prompt) :].tolist()
    return answer


@torch.inference_mode()
def is_decided(model: PreTrainedModel, prompt: tuple[int, ...], answer: list[int]) -> bool:
    """Whether rounding can choose no other token anywhere in a greedy answer to the prompt.

    Which of two tokens is the better one is certain where their logits differ by far more than what
    float32 rounds; how much that is depends on the processor (docs/design.md).
    """
    ids = torch.tensor([[*prompt, *answer[:-1]]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]
    best = logits.topk(2).values
    return bool(((best[:, 0] - best[:, 1]) > _ROUNDING * logits.std()).all())
