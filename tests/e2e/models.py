"""Models made on the spot, for tests that need more (or less) than the demo model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3_5ForCausalLM,
    Qwen3_5TextConfig,
)

_DEMO = Path(__file__).parents[2] / "server" / "millstream" / "demo" / "model"


def make_endless_model(folder: Path, *, max_context: int = 2048) -> Path:
    """A chat model with random weights that never ends its turn: answers run to max_tokens.

    8 layers, hidden size 64, the demo model's tokenizer without its end-of-turn token. The wide
    initialisation keeps greedy answers from repeating one token, so that texts can be compared.
    """
    return _write(
        LlamaForCausalLM,
        LlamaConfig,
        folder,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_context,
    )


def make_hybrid_model(folder: Path) -> Path:
    """A model like make_endless_model()'s in which three of each four layers keep a state."""
    return _write(
        Qwen3_5ForCausalLM,
        Qwen3_5TextConfig,
        folder,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        max_position_embeddings=32_768,
    )


def _write(
    model: type[PreTrainedModel], config: type[PretrainedConfig], folder: Path, **sizes: int
) -> Path:
    """Writes a random model with the demo model's tokenizer, whose answers do not end."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    vocabulary = json.loads((_DEMO / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    options = {"initializer_range": 0.2, "tie_word_embeddings": False, "pad_token_id": 0}
    ends = {"bos_token_id": None, "eos_token_id": None}
    model(config(vocab_size=vocabulary, **sizes, **options, **ends)).save_pretrained(folder)
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copy(_DEMO / name, folder / name)
    tokenizer = json.loads((_DEMO / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer["eos_token"] = None
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder
