"""From the format a client asks for to the grammar of an engine request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

from millstream.api.openai.schema.formats import WantedFormat
from millstream.core.grammar import Grammar
from millstream.errors import InvalidRequest
from millstream.text.grammar import (
    GrammarChecker,
    GrammarError,
    choice_grammar,
    json_grammar,
    lark_grammar,
    regex_grammar,
)

_MAX_CHECKED = 256

_READERS: Mapping[str, Callable[[Any], str]] = {
    "json": json_grammar,
    "regex": regex_grammar,
    "choice": choice_grammar,
    "grammar": lark_grammar,
}
_REASONING = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))


class Formats:
    """Grammars for the answers of one model. Safe to call from several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # What llguidance reads: tokens that are bytes, or fall back to them.
        decoder = tokenizer.decoder.__getstate__() if tokenizer.decoder else b""
        self._has_bytes = b'"ByteLevel"' in decoder or b'"ByteFallback"' in decoder
        # Only where each marker is a token of its own: text can be written in many ways.
        ids = [tuple(map(tokenizer.token_to_id, markers)) for markers in _REASONING]
        self._reasoning = [(begin, end) for begin, end in ids if None not in (begin, end)]
        self._check = lru_cache(_MAX_CHECKED)(GrammarChecker().check)

    def grammar(self, wanted: WantedFormat, prompt: Sequence[int], *, may_think: bool) -> Grammar:
        """may_think: whether the answer may begin with reasoning that the prompt did not open.

        Raises InvalidRequest for what cannot be enforced.
        """
        if not self._has_bytes:
            raise InvalidRequest(
                f"{wanted.param}: this model's tokenizer is not made of bytes, so its answers "
                "cannot be given a form",
                param=wanted.param,
            )
        try:
            text = _READERS[wanted.kind](wanted.value)
            self._check(text)
        except GrammarError as error:
            raise InvalidRequest(f"{wanted.param}: {error}", param=wanted.param) from error
        last = self._last_marker(prompt)
        for begin, end in self._reasoning:
            if last == begin:
                return Grammar(text=text, starts_after=end)
            if last is None and may_think:
                return Grammar(text=text, starts_after=end, opens_with=begin)
        return Grammar(text=text)

    def _last_marker(self, prompt: Sequence[int]) -> int | None:
        """The marker that the prompt ends with, apart from white space."""
        markers = {token for pair in self._reasoning for token in pair}
        for token in reversed(prompt):
            if token in markers:
                return token
            if self._tokenizer.decode([token], skip_special_tokens=False).strip():
                return None
        return None
