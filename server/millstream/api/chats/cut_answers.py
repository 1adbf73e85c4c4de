"""Answers that were cut, as others go on with them. Pure."""

from __future__ import annotations

from typing import Any

from millstream.errors import InvalidRequest
from millstream.intake.responses.request import ResponseRequest
from millstream.store.records import RUNNING, ChatTurn

_CUT = ("incomplete", "cancelled", "failed")
_SAID = ("message", "reasoning")


def said_by(turn: ChatTurn) -> list[dict[str, Any]]:
    """What an answer has said that was cut: its thoughts, and the text that it was cut in.

    Raises InvalidRequest for an answer that was not, and for one that cannot be gone on with.
    """
    status = turn.response.status
    if status in RUNNING:
        raise _refusal("it is still being made", code="response_in_progress")
    if status not in _CUT:
        raise _refusal("it was not cut, so there is nothing to go on with", code="response_not_cut")
    outputs = [item.data for item in turn.outputs]
    if any(item["type"] not in _SAID for item in outputs):
        raise _refusal("it calls tools; answer the question again", code="response_with_calls")
    said = [item for item in outputs if any(map(_text_of, item["content"]))]
    if not said:
        raise _refusal("it was cut before it said anything; answer the question again")
    if any(item["type"] == "message" for item in said[:-1]):
        raise _refusal("its text is not in one piece; answer the question again")
    return said


def check_goes_on(request: ResponseRequest) -> None:
    """Raises InvalidRequest for a form that only a whole answer can be held to."""
    wanted = request.text.format if request.text else None
    if wanted is not None and wanted.wanted("text.format") is not None:
        raise InvalidRequest(
            "text.format: an answer that is held to a form is made in one go; answer the question "
            "again",
            param="text.format",
        )
    choice = request.tool_choice
    if isinstance(choice, dict):
        choice = choice.get("mode", "required")
    if choice not in (None, "auto", "none"):
        raise InvalidRequest(
            "tool_choice: an answer that must be a call is made in one go; answer the question "
            "again",
            param="tool_choice",
        )


def _text_of(part: dict[str, Any]) -> str:
    text: str = part.get("text") or ""
    return text.strip()


def _refusal(reason: str, *, code: str = "response_without_text") -> InvalidRequest:
    return InvalidRequest(f"response: {reason}", param="response", code=code)
