"""Parsing an answer, and counting which of its tokens were reasoning. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.text.assembler import TextDelta
from millstream.text.parsing.output import Delta, OutputParser, Reasoning, merge


class CountingParser:
    """Parses one answer, and counts the tokens of what it finds to be reasoning.

    A part's tokens are its own and those before that made no text, such as markers. The count does
    not depend on how many tokens came at once.
    """

    def __init__(self, parser: OutputParser) -> None:
        self._parser = parser
        self._num_unread = 0  # tokens of which it is not known what they are
        self._is_reasoning = False  # what was read last

    def read(self, delta: TextDelta) -> tuple[list[Delta], int]:
        """The parts that a delta makes certain, and how many tokens are now known as reasoning."""
        text, finish_reason, token_ids, _, _, _, pieces, _ = delta
        if text and finish_reason is None and (not pieces or pieces[-1]):
            # Nearly always: the tokens that came together need not be read one by one.
            part = self._parser.push_plain(text)
            if part is not None:
                return [part], self._count((part,), len(token_ids))
        if pieces:
            parts, num_reasoning = self._read_pieces(pieces, len(token_ids))
        else:
            parts = self._parser.push(text) if text else []
            num_reasoning = self._count(parts, len(token_ids))
        if finish_reason is not None:
            rest = self._parser.finish()
            num_reasoning += self._count(rest, 0)
            num_reasoning += self._num_unread if self._is_reasoning else 0
            parts = merge([*parts, *rest])
        return parts, num_reasoning

    def _read_pieces(self, pieces: Sequence[str], num_tokens: int) -> tuple[list[Delta], int]:
        """What the tokens say together, each read by itself."""
        parts: list[Delta] = []
        num_reasoning = 0
        for place, piece in enumerate(pieces):
            found = self._parser.push(piece) if piece else []
            num_reasoning += self._count(found, int(place < num_tokens))
            parts += found
        self._num_unread += max(num_tokens - len(pieces), 0)
        return merge(parts), num_reasoning

    def _count(self, parts: Sequence[Delta], num_tokens: int) -> int:
        num_unread = self._num_unread + num_tokens
        if not parts:
            self._num_unread = num_unread
            return 0
        self._num_unread = 0
        # For every token; isinstance() would take longer.
        self._is_reasoning = type(parts[-1]) is Reasoning
        return num_unread if self._is_reasoning or type(parts[0]) is Reasoning else 0
