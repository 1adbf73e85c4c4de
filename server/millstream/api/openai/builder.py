"""Text deltas in, response bodies out: the stream's events and the whole answer. Pure.

Framing facts kept here (each is a client that breaks otherwise): `role` once, in the first delta;
`data: ` with its space; `content` is never missing from a delta, so naive loops can print it;
`finish_reason` null until the end; everything ASCII, because some readers split lines at U+2028.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from millstream.core.request import FinishReason
from millstream.text.assembler import TextDelta

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What every chunk of one answer repeats. created: seconds since the epoch."""

    completion_id: str
    model: str
    created: int
    fingerprint: str

    def head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.completion_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


_escape = json.encoder.encode_basestring_ascii


def usage(*, num_prompt: int, num_generated: int, num_cached: int) -> dict[str, Any]:
    """OpenAI's usage object; cached tokens are those of the prompt found in the prefix cache."""
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_generated,
        "total_tokens": num_prompt + num_generated,
        "prompt_tokens_details": {"cached_tokens": num_cached},
    }


def whole_answer(
    identity: Identity, text: str, finish_reason: FinishReason, usage: dict[str, Any]
) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": finish_reason,
    }
    return identity.head("chat.completion") | {"choices": [choice], "usage": usage}


class ChatStream:
    """The events of one streamed answer, as bytes ready for the socket.

    The JSON around the text is made once; a token costs one string escape and a concatenation.
    """

    def __init__(self, identity: Identity, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._head = json.dumps(identity.head("chat.completion.chunk"))[:-1]
        # With include_usage every chunk but the last carries `usage: null` (OpenAI's contract).
        tail = ',"usage":null}\n\n' if include_usage else "}\n\n"
        before = f'data: {self._head},"choices":[{{"index":0,"delta":{{'
        after = f'}},"logprobs":null,"finish_reason":%s}}]{tail}'
        self._first = f'{before}"role":"assistant","content":""{after % "null"}'.encode()
        self._before = f'{before}"content":'
        self._after = after % "null"
        self._after_finish = {reason: after % json.dumps(reason) for reason in ("stop", "length")}

    def first(self) -> bytes:
        """The event that opens the answer, the only one with a role."""
        return self._first

    def chunk(self, delta: TextDelta) -> bytes:
        """The event of a delta, followed by the finishing event if it is the last."""
        events = ""
        if delta.text:
            events = self._before + _escape(delta.text) + self._after
        if delta.finish_reason is not None:
            events += f'{self._before}""{self._after_finish[delta.finish_reason]}'
        return events.encode()

    def end(self, usage: dict[str, Any]) -> bytes:
        """The usage event, if asked for, and the end mark."""
        if not self._include_usage:
            return DONE
        return f'data: {self._head},"choices":[],"usage":{json.dumps(usage)}}}\n\n'.encode() + DONE
