"""What OpenAI's contract says of an answer, streamed or whole, and whoever reads it."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

from millstream.core.request import FinishReason
from millstream.intake.requests.chat import ChatRequest

ShownReason = Literal["stop", "length", "tool_calls"]


def call_id(answer_id: str, *, choice: int, index: int) -> str:
    """The id of a tool call: 9 letters and digits, the only form that all templates take.

    answer_id: that of the request. index: the call's among those of its choice.
    """
    seed = f"{answer_id} {choice} {index}".encode()
    return blake2b(seed, digest_size=8).hexdigest()[:9]


def is_tool_named(chat: ChatRequest) -> bool:
    """Whether the one call was asked for by name: then the finish reason does not speak of it."""
    return bool(chat.offered_tools) and chat.is_tool_named


def shown_reason(
    reason: FinishReason | None, *, has_calls: bool, is_tool_named: bool
) -> ShownReason | None:
    """What clients know: an answer that calls tools and ends by itself waits for results."""
    waits = has_calls and not is_tool_named
    return "tool_calls" if waits and reason == "stop" else reason
