"""Tiny random models of many architectures, made with weights large enough to matter.

Default initialisation gives logits so flat that argmax hardly depends on attention; here every
matrix is scaled up, so that a wrong key, position or mask changes the answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCAB = 199

_BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}

_MOE: dict[str, Any] = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 24},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {"head_dim": 16, "moe_intermediate_size": 48, **_MOE},
    "mixtral": {**_MOE},
    "gemma2": {"head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 16},
    "gemma3_text": {"head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 16},
    "phi3": {},
    "gpt_neox": {},
    "starcoder2": {"sliding_window": 24},
    "olmo2": {},
    "cohere2": {"sliding_window": 24, "head_dim": 16},
    "gpt_oss": {"head_dim": 16, "sliding_window": 24, **_MOE},
    "smollm3": {},
    "granite": {},
}


def make_model(
    model_type: str, folder: Path, *, seed: int = 0, **overrides: Any
) -> PreTrainedModel:
    """Saves a tiny float32 model in `folder` and returns it."""
    options = _BASE | ARCHITECTURES.get(model_type, {}) | overrides
    config = AutoConfig.for_model(model_type, **options)
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                spread = 1.5 * parameter.shape[-1] ** -0.5
                parameter.normal_(0.0, spread, generator=generator)
    model.eval()
    model.save_pretrained(folder)
    return model


def greedy(model: PreTrainedModel, prompt: tuple[int, ...], max_tokens: int) -> list[int]:
    """What transformers' own generate answers, with its own attention and cache."""
    ids = torch.tensor([prompt])
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
