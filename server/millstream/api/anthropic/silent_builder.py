"""The message of a request for no tokens (`max_tokens: 0`), which puts its prompt into the cache.

Anthropic's documentation of prompt caching, "pre-warming the cache", has its form: no blocks, no
tokens, and `max_tokens` as the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream.api.anthropic.builder import MessageBuilder
from millstream.api.openai.generate.answer import WholeChoice
from millstream.text.assembler import TextDelta


class SilentMessageBuilder(MessageBuilder):
    """Makes it, whatever the one token says that the engine cannot do without."""

    def chunk(self, index: int, delta: TextDelta, usage: dict[str, Any] | None = None) -> bytes:
        return super().chunk(index, _silent(delta), usage)

    def end(self, usage: dict[str, Any]) -> bytes:
        return super().end(_without_tokens(usage))

    def whole(self, choices: Sequence[WholeChoice], usage: dict[str, Any]) -> dict[str, Any]:
        silent = [WholeChoice.of([_silent(delta) for delta in choices[0].deltas])]
        return super().whole(silent, _without_tokens(usage))


def _silent(delta: TextDelta) -> TextDelta:
    return TextDelta("", finish_reason=None if delta.finish_reason is None else "length")


def _without_tokens(usage: dict[str, Any]) -> dict[str, Any]:
    details = usage["completion_tokens_details"] | {"reasoning_tokens": 0}
    return usage | {"completion_tokens": 0, "completion_tokens_details": details}
