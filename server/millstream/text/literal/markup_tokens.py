"""The tokens by which a chat template structures a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer

_SHORTEST = 2


class MarkupTokens(NamedTuple):
    """Token id -> text. special: those that the tokenizer calls special. tags: others that the
    template writes, such as `<tool_call>` and `</think>`."""

    special: Mapping[int, str]
    tags: Mapping[int, str]

    @property
    def all(self) -> dict[int, str]:
        return {**self.special, **self.tags}


def markup_tokens(tokenizer: Tokenizer, template_source: str) -> MarkupTokens:
    """Those of one model. A token of a single letter is none: nothing could stand in its place."""
    special, tags = {}, {}
    for token_id, token in tokenizer.get_added_tokens_decoder().items():
        if len(token.content) < _SHORTEST:
            continue
        if token.special:
            special[token_id] = token.content
        elif _is_tag(token) and token.content in template_source:
            tags[token_id] = token.content
    return MarkupTokens(special, tags)


def _is_tag(token: AddedToken) -> bool:
    """Whether it looks like `<this>` or `[that]`: words and blanks are what people write."""
    text = token.content.strip()
    return len(text) > _SHORTEST and not (text[0].isalnum() or text[-1].isalnum())
