"""How many tokens a request has cost, and which of them were reasoning. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream.text.assembler import TextDelta
from millstream.text.parsing.output import Delta, OutputParser, Reasoning, merge


def usage(
    *, num_prompt: int, num_generated: int, num_reasoning: int, num_cached: int
) -> dict[str, Any]:
    """OpenAI's usage object; cached tokens are those of the prompt found in the prefix cache."""
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_generated,
        "total_tokens": num_prompt + num_generated,
        "prompt_tokens_details": {"cached_tokens": num_cached},
        "completion_tokens_details": {"reasoning_tokens": num_reasoning},
    }


def usage_before(delta: TextDelta, usage: dict[str, Any]) -> dict[str, Any]:
    """The usage without the tokens of this delta, which it counts."""
    num_tokens = len(delta.token_ids)
    num_reasoning: int = usage["completion_tokens_details"]["reasoning_tokens"]
    return usage | {
        "completion_tokens": usage["completion_tokens"] - num_tokens,
        "total_tokens": usage["total_tokens"] - num_tokens,
        "completion_tokens_details": {"reasoning_tokens": num_reasoning - delta.num_reasoning},
    }


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
        num_tokens = len(delta.token_ids)
        if not delta.pieces:
            parts = self._parser.push(delta.text) if delta.text else []
            num_reasoning = self._count(parts, num_tokens)
        else:
            parts, num_reasoning = [], 0
            for place, piece in enumerate(delta.pieces):
                found = self._parser.push(piece) if piece else []
                num_reasoning += self._count(found, int(place < num_tokens))
                parts += found
            self._num_unread += max(num_tokens - len(delta.pieces), 0)
            parts = merge(parts)
        if delta.finish_reason is not None:
            rest = self._parser.finish()
            num_reasoning += self._count(rest, 0)
            num_reasoning += self._num_unread if self._is_reasoning else 0
            parts = merge([*parts, *rest])
        return parts, num_reasoning

    def _count(self, parts: Sequence[Delta], num_tokens: int) -> int:
        self._num_unread += num_tokens
        if not parts:
            return 0
        self._is_reasoning = isinstance(parts[-1], Reasoning)
        is_counted = self._is_reasoning or isinstance(parts[0], Reasoning)
        num_counted = self._num_unread if is_counted else 0
        self._num_unread = 0
        return num_counted
