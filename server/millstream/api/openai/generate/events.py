"""What the events of every streamed answer share: their frame and their end. Pure.

Framing facts kept here and by those who build on it (each is a client that breaks otherwise):
`data: ` with its space; everything ASCII, because some readers split lines at U+2028;
`finish_reason` null until the end; `[DONE]` once, after the last choice.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any

from millstream.api.openai.generate.answer import Identity, Report
from millstream.text.assembler import TextDelta
from millstream.text.vocabulary import Vocabulary

_DONE = b"data: [DONE]\n\n"


class EventBuilder(ABC):
    """Makes the events of one request out of the deltas of its choices. kind: of object.

    The JSON around the text is made once for each choice; a token costs one string escape and a
    concatenation, unless more than its text is to be reported.
    """

    def __init__(
        self, identity: Identity, kind: str, *, report: Report, vocabulary: Vocabulary
    ) -> None:
        self._vocabulary = vocabulary
        self._head = json.dumps(identity.head(kind))[:-1]
        self._has_usage = report.usage
        # With include_usage every chunk but the last carries `usage: null` (OpenAI's contract).
        self._tail = ',"usage":null}\n\n' if report.usage else "}\n\n"
        self._is_plain = not (report.logprobs or report.token_ids or report.running_usage)
        self._before: dict[int, str] = {}

    @abstractmethod
    def chunk(self, index: int, delta: TextDelta, usage: dict[str, Any] | None = None) -> bytes:
        """The events of a choice's delta, empty if it has no news for the client.

        usage: the request's so far; needed if running usage is reported.
        """

    def end(self, usage: dict[str, Any]) -> bytes:
        """The usage event, if asked for, and the end mark."""
        if not self._has_usage:
            return _DONE
        return f'data: {self._head},"choices":[],"usage":{json.dumps(usage)}}}\n\n'.encode() + _DONE
