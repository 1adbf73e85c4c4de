"""What one dialect says of an answer: its events while it is made, or the whole of it. Pure.

Both come from one builder, so that a client reads the same whether it streams or not.

Framing facts kept here and by those who build on it (each is a client that breaks otherwise):
`data: ` with its space; everything ASCII, because some readers split lines at U+2028;
`finish_reason` null until the end; `[DONE]` once, after the last choice.

An event is made of text, not of objects: the JSON around a token is the same for every token of a
choice, so it is made once, and a token costs one string escape and a concatenation. Only where a
client asked for more than the text (log probabilities, token ids, running usage) is the rest of an
event made anew.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from millstream.api.openai.generate.answer import Identity, Report, WholeChoice
from millstream.api.wire.error_bodies import error_event
from millstream.errors import MillstreamError
from millstream.generation.contract import ShownReason
from millstream.text.assembler import TextDelta
from millstream.text.vocabulary import Vocabulary

_DONE = b"data: [DONE]\n\n"


class AnswerBuilder(ABC):
    """Makes the events or the body of one request out of the deltas of its choices.

    finish_reasons: what it has said of the choices that have ended.
    """

    def __init__(
        self, identity: Identity, *, chunk_kind: str, report: Report, vocabulary: Vocabulary
    ) -> None:
        """chunk_kind: the `object` of an event."""
        self._identity = identity
        self._vocabulary = vocabulary
        self._head = json.dumps(identity.head(chunk_kind))[:-1]
        self._has_usage = report.usage
        # With include_usage every chunk but the last carries `usage: null` (OpenAI's contract).
        self._tail = ',"usage":null}\n\n' if report.usage else "}\n\n"
        self._is_plain = not (report.logprobs or report.token_ids or report.running_usage)
        self._before: dict[int, str] = {}
        self.finish_reasons: dict[int, ShownReason] = {}

    @property
    def completion_id(self) -> str:
        """The id of the answer."""
        return self._identity.completion_id

    @abstractmethod
    def chunk(self, index: int, delta: TextDelta, usage: dict[str, Any] | None = None) -> bytes:
        """The events of a choice's delta, empty if it has no news for the client.

        usage: the request's so far; needed if running usage is reported.
        """

    @abstractmethod
    def whole(self, choices: Sequence[WholeChoice], usage: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""

    def failure(self, error: MillstreamError) -> bytes:
        """The last event of a stream that failed after it began."""
        return error_event(error)

    def end(self, usage: dict[str, Any]) -> bytes:
        """The usage event, if asked for, and the end mark."""
        if not self._has_usage:
            return _DONE
        return f'data: {self._head},"choices":[],"usage":{json.dumps(usage)}}}\n\n'.encode() + _DONE
