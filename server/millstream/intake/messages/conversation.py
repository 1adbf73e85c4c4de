"""From the messages of the Messages API to those of a chat.

Rules: what the model said in one go, its thoughts, text and calls, is one message, so that the
prompt repeats the tokens of the answer and the prefix cache has them. Everything else stays where
it is, a message of the system in the middle as well; marks for caches change no text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from millstream.errors import InvalidRequest
from millstream.intake.fields.chat_messages import Message
from millstream.intake.messages.blocks import (
    Block,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    check_part,
    read_content,
    refusal,
    texts_of,
)
from millstream.intake.requests.turns import MessagePlaces, SaidTurn, content_of
from millstream.intake.responses.sealed_text import NotSealedHere, decode_reasoning
from millstream.intake.strict_body import Body

_BILLING = "x-anthropic-billing-header:"
"""The beginning of a text that Claude Code puts before all others, another in each conversation."""
_ERROR = "Error: "


class GivenMessage(Body):
    """content: looked at by its role."""

    role: Literal["user", "assistant", "system"]
    content: Any
    id: Any = None


class Conversation:
    """Messages made of what a body has, in its order. places: where each came from."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.places: list[MessagePlaces] = []
        self._answer: SaidTurn | None = None
        self._called: set[str] = set()

    def add_system(self, system: Any) -> None:
        """The system's texts at the start. Raises InvalidRequest."""
        texts = texts_of(read_content(system, role="system", path="system"))
        texts = [text for text in texts if not text.startswith(_BILLING)]
        if any(texts):
            self._append({"role": "system", "content": content_of(texts)}, "system")

    def add(self, given: Sequence[Any]) -> None:
        """Raises InvalidRequest for what is no message, and a result without its call."""
        for place, one in enumerate(given):
            path = f"messages[{place}]"
            message = check_part(GivenMessage, one, path=path)
            at = f"{path}.content"
            if message.content is None:
                raise refusal(at, "Field required")
            blocks = read_content(message.content, role=message.role, path=at)
            if not blocks:
                raise refusal(at, "there is none")
            if message.role == "assistant":
                self._add_said(blocks, path=at)
            else:
                self._add_heard(message.role, blocks, path=at)
        self._end_answer()

    def _add_said(self, blocks: Sequence[tuple[str, Block]], *, path: str) -> None:
        answer = self._answer = self._answer or SaidTurn(path)
        for at, block in blocks:
            if isinstance(block, TextBlock):
                answer.texts.append(block.text)
            elif isinstance(block, ThinkingBlock):
                answer.thoughts += filter(None, [_thought_of(block)])
            elif isinstance(block, ToolUseBlock):
                function = {"name": block.name, "arguments": _json(block.input, path=at)}
                answer.calls.append({"id": block.id, "function": function})
                answer.paths.append(f"{at}.input")
                self._called.add(block.id)

    def _add_heard(self, role: str, blocks: Sequence[tuple[str, Block]], *, path: str) -> None:
        """The results among the blocks, and the texts between them, each run one message."""
        texts: list[str] = []
        for at, block in blocks:
            if isinstance(block, TextBlock):
                texts.append(block.text)
            elif isinstance(block, ToolResultBlock):
                if texts:
                    self._append({"role": role, "content": content_of(texts)}, path)
                    texts = []
                self._add_result(block, path=at)
        if texts:
            self._append({"role": role, "content": content_of(texts)}, path)

    def _add_result(self, block: ToolResultBlock, *, path: str) -> None:
        if block.tool_use_id not in self._called:
            raise refusal(f"{path}.tool_use_id", "no tool_use block before it has this id")
        at = f"{path}.content"
        texts = texts_of(read_content(block.content, role="tool_result", path=at))
        if block.is_error:
            texts = [_ERROR + "".join(texts[:1]), *texts[1:]]
        message = {"role": "tool", "content": content_of(texts), "tool_call_id": block.tool_use_id}
        self._append(message, at)

    def _append(self, message: dict[str, Any], path: str) -> None:
        self._end_answer()
        self.messages.append(Message.model_validate(message))
        self.places.append(MessagePlaces(path))

    def _end_answer(self) -> None:
        if self._answer is not None:
            message, places = self._answer.message("".join(self._answer.texts))
            self._answer = None
            self.messages.append(message)
            self.places.append(places)


def _thought_of(block: ThinkingBlock) -> str:
    """What a block says; it is in the signature, if it was not shown."""
    if block.thinking or not isinstance(block.signature, str):
        return block.thinking
    try:
        return decode_reasoning(block.signature)
    except NotSealedHere:
        return ""


def _json(value: dict[str, Any], *, path: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise InvalidRequest(f"{path}.input: nested too deeply", param=f"{path}.input") from error
