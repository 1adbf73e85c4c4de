"""What the content of messages is made of, block by block.

Sources: Anthropic's SDK, `ContentBlockParam`, and the keys that programs leave in blocks that they
send back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from millstream.errors import InvalidRequest
from millstream.intake.hints import check_hints
from millstream.intake.strict_body import Body, invalid

B = TypeVar("B", bound=Body)


class BlockKeys(Body):
    """cache_control: a hint."""

    cache_control: Any = None


class TextBlock(BlockKeys):
    """citations: where a text of an earlier answer came from, which the text itself says.
    parsed_output: the text once more, as SDKs add it."""

    type: Literal["text"]
    text: str
    citations: Any = None
    parsed_output: Any = None


class ThinkingBlock(BlockKeys):
    """signature: a hint."""

    type: Literal["thinking"]
    thinking: str
    signature: Any = None


class RedactedThinkingBlock(BlockKeys):
    """A thought that only the server which made it can read."""

    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(BlockKeys):
    """caller: who called, which was the model."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    caller: Any = None
    toolset_name: None = None


class ToolResultBlock(BlockKeys):
    """content: looked at on its own."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: Any = None
    is_error: bool | None = None
    toolset_name: None = None


Block = TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock

_TEXT: dict[str, type[Block]] = {"text": TextBlock}
_BLOCKS: dict[str, dict[str, type[Block]]] = {
    "system": _TEXT,
    "user": {"text": TextBlock, "tool_result": ToolResultBlock},
    "assistant": {
        "text": TextBlock,
        "thinking": ThinkingBlock,
        "redacted_thinking": RedactedThinkingBlock,
        "tool_use": ToolUseBlock,
    },
    "tool_result": _TEXT,
}
"""Role, or the block that has others in it -> the types of blocks that it may have."""


def read_content(content: Any, *, role: str, path: str) -> list[tuple[str, Block]]:
    """Blocks, each with its path; a text is one block, and none is none. Raises InvalidRequest."""
    if content is None:
        return []
    if isinstance(content, str):
        return [(path, TextBlock(type="text", text=content))]
    if not isinstance(content, list):
        raise refusal(path, "should be a text or a list of blocks")
    return [
        (at, _read_block(block, role=role, path=at))
        for at, block in ((f"{path}[{place}]", block) for place, block in enumerate(content))
    ]


def check_part(kind: type[B], value: Any, *, path: str) -> B:
    """The value as this kind. Raises InvalidRequest that names what is wrong in it."""
    if not isinstance(value, dict):
        raise refusal(path, "should be an object")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        found = invalid(error.errors(include_url=False)[0])
        raise InvalidRequest(f"{path}.{found.message}", param=f"{path}.{found.param}") from error


def refusal(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)


def texts_of(blocks: Iterable[tuple[str, Block]]) -> list[str]:
    """The texts among the blocks."""
    return [block.text for _, block in blocks if isinstance(block, TextBlock)]


def _read_block(given: Any, *, role: str, path: str) -> Block:
    if not isinstance(given, dict):
        raise refusal(path, "should be an object")
    kinds, name = _BLOCKS[role], given.get("type")
    if not isinstance(name, str):
        raise refusal(f"{path}.type", "Field required" if name is None else "should be a text")
    kind = kinds.get(name)
    if kind is None:
        of = "a tool's result" if role == "tool_result" else f"the {role}"
        raise refusal(
            f"{path}.type",
            f"{name[:64]!r} cannot be read by this server; {of} may have {', '.join(kinds)}",
        )
    if role in ("user", "assistant"):
        check_hints("messages", given, under="messages[].content[].", at=f"{path}.")
    else:
        check_hints("messages", given, under="system[].", at=f"{path}.")
    return check_part(kind, given, path=path)
