"""Items that come in, each checked alone.

Rules: every key that OpenAI's document gives an item is taken, and those that programs leave when
they send an answer's item back; what they say of its state is not looked at. An item is stored as
it was sent, but has a type, an id and a status, and the content of a message is a list.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from millstream.errors import InvalidRequest
from millstream.intake.responses.item_kinds import (
    ITEM_KINDS,
    CompactionItem,
    MessageItem,
    Parts,
    ReasoningItem,
)
from millstream.intake.responses.sealed_text import NotSealedHere, decode_reasoning
from millstream.intake.strict_body import Body, invalid

MAX_ITEMS = 10_000

Item = dict[str, Any]

_MEDIA = {
    "computer_screenshot",
    "image",
    "image_url",
    "input_audio",
    "input_file",
    "input_image",
    "input_video",
    "output_audio",
}
_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
    "compaction": "cmp",
    "tool_search_call": "tsc",
    "tool_search_output": "tso",
    "additional_tools": "at",
}


def new_item_id(kind: str) -> str:
    """An id for an item of a type."""
    return f"{_PREFIXES[kind]}_{secrets.token_hex(16)}"


_WITHOUT_STATUS = ("additional_tools", "compaction", "item_reference", "reasoning")
"""The types of items that need none when they are shown."""


def read_items(given: str | Sequence[Any], *, path: str = "input") -> list[Item]:
    """The items of a field. Raises InvalidRequest that names the place of what is wrong."""
    if isinstance(given, str):
        return [_message_of(given)]
    return [_read_item(item, path=f"{path}[{place}]") for place, item in enumerate(given)]


def check_model(kind: type[Body], value: Any, *, path: str) -> Any:
    """The value as this kind. Raises InvalidRequest that names what is wrong in it."""
    if not isinstance(value, dict):
        raise _refusal(path, "should be an object")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        refusal = invalid(error.errors(include_url=False)[0])
        raise InvalidRequest(
            f"{path}.{refusal.message}", param=f"{path}.{refusal.param}"
        ) from error


def _message_of(text: str) -> Item:
    content = [{"type": "input_text", "text": text}]
    return {
        "id": new_item_id("message"),
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": content,
    }


def _read_item(given: Any, *, path: str) -> Item:
    if not isinstance(given, dict):
        raise _refusal(path, "should be an object")
    kind = _kind(given, path=path)
    item = {**given, "type": kind}
    for name in ("content", "output"):
        _check_media(item.get(name), path=f"{path}.{name}")
    checked = check_model(ITEM_KINDS[kind], item, path=path)
    for name in ("content", "output", "summary"):
        _check_parts(getattr(checked, name, None), path=f"{path}.{name}")
    if isinstance(checked, MessageItem):
        item["content"] = _content(checked, item["content"], path=path)
    if isinstance(checked, ReasoningItem):
        _check_reasoning(checked, path=path)
    if isinstance(checked, CompactionItem):
        _check_sealed(checked.encrypted_content, path=path)
    if item.get("id") is None:
        item["id"] = new_item_id(kind)
    if kind not in _WITHOUT_STATUS and item.get("status") is None:
        item["status"] = "completed"
    return item


def _kind(item: Item, *, path: str) -> str:
    """The type; old clients leave out that of messages, and that of references may be null."""
    kind = item.get("type")
    if kind is None:
        kind = "message" if "role" in item else "item_reference" if "id" in item else None
    if kind is None:
        raise _refusal(f"{path}.type", "Field required")
    if not isinstance(kind, str) or kind not in ITEM_KINDS:
        raise _refusal(f"{path}.type", f"this server reads no items of type {str(kind)[:80]}")
    return kind


def _content(message: MessageItem, sent: Any, *, path: str) -> list[dict[str, Any]]:
    """The content as a list of parts."""
    is_answer = message.role == "assistant"
    if isinstance(sent, str):
        part: dict[str, Any] = {"type": "output_text" if is_answer else "input_text", "text": sent}
        return [{**part, "annotations": []}] if is_answer else [part]
    if not sent and not is_answer:
        raise _refusal(f"{path}.content", f"the {message.role}'s message has none")
    return list(sent)


def _check_media(content: Any, *, path: str) -> None:
    for place, part in enumerate(content if isinstance(content, list) else ()):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind in _MEDIA:
            raise _refusal(f"{path}[{place}].type", f"this model reads text, not {kind}")


def _check_parts(content: str | Parts | None, *, path: str) -> None:
    for place, part in enumerate(content if isinstance(content, list) else ()):
        name, other = ("refusal", "text") if part.type == "refusal" else ("text", "refusal")
        if getattr(part, name) is None:
            raise _refusal(f"{path}[{place}].{name}", "Field required")
        if getattr(part, other) is not None:
            raise _refusal(f"{path}[{place}].{other}", f"a part of type {part.type} has none")


def _check_reasoning(item: ReasoningItem, *, path: str) -> None:
    """Raises InvalidRequest if what was thought is only in a text that cannot be read."""
    if item.encrypted_content and not item.content:
        try:
            decode_reasoning(item.encrypted_content)
        except NotSealedHere as error:
            if not item.summary:
                raise _refusal(f"{path}.encrypted_content", str(error)) from error


def _check_sealed(sealed: str, *, path: str) -> None:
    try:
        decode_reasoning(sealed)
    except NotSealedHere as error:
        raise _refusal(f"{path}.encrypted_content", str(error)) from error


def _refusal(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)
