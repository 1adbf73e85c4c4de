"""Loading the tokenizer that a model folder brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from millstream.errors import StartupError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(folder: Path, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The model's own fast tokenizer, with or without a chat template. Raises StartupError."""
    # Intentional: transformers takes seconds to import, and the HTTP process has better things to
    # do in that time (start the engine, listen), so it is imported in the thread that loads.
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code
        )
    # Whatever a tokenizer class of transformers raises where it finds no files of its kind.
    except (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError) as error:
        if not (folder / "tokenizer.json").is_file():
            raise StartupError(
                f"{folder} has no tokenizer.json, nor a tokenizer that can be converted to one"
            ) from error
        reason = " ".join(str(error).split())
        raise StartupError(f"the tokenizer in {folder} cannot be loaded: {reason}") from error
    if not tokenizer.is_fast:
        raise StartupError(f"{folder} has no fast tokenizer (tokenizer.json), which is needed")
    return tokenizer


def read_tokenizer(folder: Path, *, trust_remote_code: bool) -> str:
    """The model's tokenizer as text in the format of tokenizer.json, with all added tokens.

    Raises StartupError as `load_tokenizer()` does.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    text: str = backend.to_str()
    return text
