"""Models made on the spot, for tests that need more (or less) than the demo model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

_DEMO = Path(__file__).parents[2] / "server" / "millstream" / "demo" / "model"


def make_endless_model(folder: Path, *, max_context: int = 2048) -> Path:
    """A chat model with random weights that never ends its turn: answers run to max_tokens.

    8 layers, hidden size 64, the demo model's tokenizer without its end-of-turn token. The wide
    initialisation keeps greedy answers from repeating one token, so that texts can be compared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    vocabulary = json.loads((_DEMO / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_context,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copy(_DEMO / name, folder / name)
    tokenizer = json.loads((_DEMO / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer["eos_token"] = None
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder
