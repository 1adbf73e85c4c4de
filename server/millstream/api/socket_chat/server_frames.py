"""What the server says in a frame: pieces of an answer, its end, and what failed. Pure.

Rules: every frame has an id and a text. The page of llm-token-stream adds the text of each to the
entry that the id counts to, and makes the entry when the first text is empty: so the first frame
of an answer has no text, and frames that have something else to say have none either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from millstream.api.openai.generate.usage import usage
from millstream.api.wire.error_bodies import error_body
from millstream.errors import MillstreamError

_DATA = b"\ndata: "
_END = b"\n\n"
_TEXT = b"event: response.output_text.delta\n"
_THOUGHT = b"event: response.reasoning_text.delta\n"


class _Delta(msgspec.Struct):
    delta: str


_decode = msgspec.json.Decoder(_Delta).decode


class Piece(NamedTuple):
    """What an answer says next. reasoning: what it thinks before it says something."""

    text: str
    reasoning: str


def piece_of(frames: bytes) -> Piece:
    """What the events of a response add to its text, all in one."""
    text, reasoning = "", ""
    for event in frames.split(_END):
        # The id of the event stands before its name.
        name = event.find(b"\n") + 1
        if event.startswith(_TEXT, name):
            text += _decode(event.partition(_DATA)[2]).delta
        elif event.startswith(_THOUGHT, name):
            reasoning += _decode(event.partition(_DATA)[2]).delta
    return Piece(text, reasoning)


def opening_text(identifier: int | str, place: Mapping[str, str]) -> str:
    """The frame that says that an answer is being made. place: what it is said in, if in any."""
    return _frame(identifier, place)


def piece_text(identifier: int | str, piece: Piece) -> str:
    """The frame of a piece."""
    fields = {"reasoning": piece.reasoning} if piece.reasoning else {}
    return _frame(identifier, fields, text=piece.text)


def final_text(identifier: int | str, response: Mapping[str, Any]) -> str:
    """The frame that ends an answer. response: as the Responses API shows it at its end."""
    calls = _calls(response["output"])
    status = response["status"]
    reason = {"incomplete": "length", "cancelled": "cancelled"}.get(status, "stop")
    if calls and status == "completed":
        reason = "tool_calls"
    fields: dict[str, Any] = {"finish_reason": reason, "usage": _usage(response["usage"])}
    return _frame(identifier, fields | ({"tool_calls": calls} if calls else {}))


def cancelled_text(identifier: int | str) -> str:
    """The frame that ends an answer of which nothing was made."""
    return _frame(identifier, {"finish_reason": "cancelled", "usage": None})


def error_text(error: MillstreamError, identifier: int | str | None) -> str:
    """The frame that says what went wrong: with an answer, or with a frame that has no id."""
    fields: dict[str, Any] = {"status": error.status, **error_body(error)}
    if error.retry_after is not None:
        fields["retry_after"] = error.retry_after
    return _frame(identifier, fields)


def _frame(identifier: int | str | None, fields: Mapping[str, Any], *, text: str = "") -> str:
    return json.dumps({"id": identifier, "text": text, **fields}, separators=(",", ":"))


def _usage(given: Mapping[str, Any]) -> dict[str, Any]:
    """The tokens that a response has cost, in the words of chat completions."""
    return usage(
        num_prompt=given["input_tokens"],
        num_generated=given["output_tokens"],
        num_reasoning=given["output_tokens_details"]["reasoning_tokens"],
        num_cached=given["input_tokens_details"]["cached_tokens"],
    )


def _calls(output: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The calls of tools, which a model may make that saw some in its conversation."""
    return [
        {
            "id": item["call_id"],
            "type": "function",
            "function": {"name": item["name"], "arguments": item["arguments"]},
        }
        for item in output
        if item["type"] == "function_call"
    ]
