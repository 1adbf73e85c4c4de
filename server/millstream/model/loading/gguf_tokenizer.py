"""The tokenizer and chat template in a GGUF file.

transformers builds the tokenizer. Which rule splits a text into words, before they become tokens,
the file says by a name of llama.cpp's; transformers takes GPT-2's rule for every name that it does
not know. Prompts would then be tokens that the model never saw, so such a file is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from millstream.errors import StartupError
from millstream.model.stored.gguf_file import read_gguf

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEMPLATE = "tokenizer.chat_template"
SPLITTING_RULES = frozenset(
    {
        *("gpt-2", "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "lfm2"),
        *("dbrx", "smaug-bpe", "tekken", "qwen2", "deepseek-r1-qwen", "megrez", "qwen35"),
        *("gpt-4o", "llama4", "minimax-m2"),
    }
)
"""Names of llama.cpp's that transformers knows, and GPT-2's."""

_WHOLE_WORDS = frozenset(
    {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "lfm2", "tekken"}
)
"""Tokenizers that take a word which is a token as it is, whatever its merges would make of it."""


def gguf_template(path: Path) -> str | None:
    """The chat template in a GGUF file, if it has one. Raises StartupError."""
    found = read_gguf(path).metadata.get(_TEMPLATE)
    return None if found is None else str(found)


def load_gguf_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a GGUF file, with its chat template. Raises StartupError."""
    metadata = read_gguf(path).metadata
    model, rule = (metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    advice = f"put the model's own tokenizer.json beside {path.name}"
    if model is None:
        raise StartupError(f"{path.name} has no tokenizer; {advice}")
    if model not in ("gpt2", "llama"):
        raise StartupError(f"{path.name}: a tokenizer of the kind {model!r} is not known; {advice}")
    if model == "gpt2" and rule not in SPLITTING_RULES:
        raise StartupError(
            f"{path.name}: how its tokenizer splits words ({rule!r}) is not known; {advice}"
        )
    # Intentional: transformers takes seconds to import, see `tokenizer`.
    from transformers import PreTrainedTokenizerFast

    kind: Any = PreTrainedTokenizerFast
    try:
        tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(path.parent, gguf_file=path.name)
    except (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise StartupError(
            f"the tokenizer in {path.name} cannot be loaded: {reason}; {advice}"
        ) from error
    if model == "gpt2" and rule in _WHOLE_WORDS:
        backend: Any = tokenizer
        backend.backend_tokenizer.model.ignore_merges = True
    tokenizer.chat_template = metadata.get(_TEMPLATE)
    return tokenizer
