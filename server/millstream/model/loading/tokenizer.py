"""Loading the tokenizer that a model folder brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from millstream.errors import StartupError
from millstream.model.loading.gguf_tokenizer import gguf_template, load_gguf_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(
    folder: Path, *, trust_remote_code: bool, gguf_file: str | None = None
) -> PreTrainedTokenizerBase:
    """The model's own fast tokenizer, with or without a chat template. Raises StartupError.

    gguf_file: the name of a file that has a tokenizer, for a folder without one, and a template.
    """
    if gguf_file is not None and not (folder / "tokenizer.json").is_file():
        return load_gguf_tokenizer(folder / gguf_file)
    # Intentional: transformers takes seconds to import, and the HTTP process has better things to
    # do in that time (start the engine, listen), so it is imported in the thread that loads.
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    has_config = (folder / "config.json").is_file() or gguf_file is None
    kind: Any = AutoTokenizer if has_config else PreTrainedTokenizerFast
    try:
        tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(
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
    if gguf_file is not None and not tokenizer.chat_template:
        tokenizer.chat_template = gguf_template(folder / gguf_file)
    return tokenizer


def read_tokenizer(folder: Path, *, trust_remote_code: bool, gguf_file: str | None = None) -> str:
    """The model's tokenizer as text in the format of tokenizer.json, with all added tokens.

    Raises StartupError as `load_tokenizer()` does.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code, gguf_file=gguf_file)
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    text: str = backend.to_str()
    return text
