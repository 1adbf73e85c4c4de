"""The tokens of a text, each with where in it it stands."""

from __future__ import annotations

from typing import NamedTuple

from tokenizers import Tokenizer

from millstream.text.encoding import encode


class PlacedToken(NamedTuple):
    """start, stop: characters of the text; equal for a token that stands for none of it."""

    id: int
    start: int
    stop: int


def placed_tokens(
    tokenizer: Tokenizer,
    text: str,
    *,
    param: str,
    add_special_tokens: bool = False,
    keep_last: int | None = None,
) -> list[PlacedToken]:
    """The tokens, at most the last ones. Raises InvalidRequest for a text that cannot be read."""
    encoding = encode(tokenizer, text, param=param, add_special_tokens=add_special_tokens)
    end = len(encoding)
    begin = 0 if keep_last is None else max(end - keep_last, 0)
    # Not `offsets`, which keeps the interpreter until all of them are made.
    return [
        PlacedToken(token_id, *(encoding.token_to_chars(place) or (0, 0)))
        for place, token_id in enumerate(encoding.ids[begin:], begin)
    ]
