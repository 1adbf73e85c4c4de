"""A tokenizer in which markup has other names, so that no text can be mistaken for it.

It is the model's own in everything else: normalisation, words, merges, ids. A token of markup is
known there by an alias that nobody can guess; its own text is a text like any other, and so are
those that normalisation would make of it. Thus one call encodes what a template has written
(aliases) and what people wrote (texts), with the words between as they always are.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from millstream.errors import StartupError, is_library_failure

FLAG = "--literal-user-text"


def new_aliases(tokens: Mapping[int, str]) -> dict[str, str]:
    """Text of each token -> its alias: letters that no normalisation changes, in brackets as most
    tokens are, for those who look at what stands beside a word."""
    secret = secrets.token_hex(12)
    return {text: f"<{secret}{token_id:08x}>" for token_id, text in tokens.items()}


def renamed(tokenizer: Tokenizer, aliases: Mapping[str, str]) -> Tokenizer:
    """A copy that knows these tokens by their aliases. Takes seconds for a large vocabulary.

    Raises StartupError for a tokenizer that cannot be copied so.
    """
    try:
        parts: dict[str, Any] = json.loads(tokenizer.to_str())
        for token in parts["added_tokens"]:
            token["content"] = aliases.get(token["content"], token["content"])
        _rename_pieces(parts["model"], aliases)
        # It only adds tokens around a text, which nobody asks this tokenizer for.
        parts["post_processor"] = None
        return Tokenizer.from_str(json.dumps(parts, ensure_ascii=False))
    except BaseException as error:
        if not is_library_failure(error):
            raise
        raise StartupError(f"{FLAG}: this model's tokenizer cannot be copied: {error}") from error


def _rename_pieces(model: dict[str, Any], aliases: Mapping[str, str]) -> None:
    """Takes markup from the vocabulary, where words or merges could come to it without its name."""
    vocab: Any = model["vocab"]
    if isinstance(vocab, list):
        model["vocab"] = [[aliases.get(piece, piece), score] for piece, score in vocab]
        return
    model["vocab"] = {aliases.get(piece, piece): number for piece, number in vocab.items()}
    if model.get("unk_token") in aliases:
        model["unk_token"] = aliases[model["unk_token"]]
    if not aliases.keys().isdisjoint(vocab) and model.get("merges"):
        model["merges"] = [
            merge for merge in model["merges"] if aliases.keys().isdisjoint(_pieces(merge))
        ]


def _pieces(merge: str | Sequence[str]) -> tuple[str, str, str]:
    """What is merged, and what becomes of it."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second, first + second
