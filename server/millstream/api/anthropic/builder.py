"""The events of one message, or the whole of it. Pure.

A message is a list of blocks: thoughts, texts and calls, in the order in which the model made them.
An event is made of text, not of objects: the JSON around a token is the same for every token of a
block, so it is made once, and a token costs one string escape and a concatenation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from millstream.api.anthropic.blocks import (
    SIGNATURE,
    blocks_of,
    messages_usage,
    sealed,
    text_block,
    thinking_block,
    tool_use_block,
    usage_of,
)
from millstream.api.openai.generate.answer import Identity, Report, WholeChoice
from millstream.api.openai.generate.answer_builder import AnswerBuilder
from millstream.api.wire.messages_errors import messages_error_event
from millstream.errors import MillstreamError
from millstream.generation.contract import ShownReason, call_id, shown_reason
from millstream.text.assembler import TextAssembler, TextDelta
from millstream.text.parsing.output import (
    Content,
    Delta,
    Reasoning,
    ToolCallArguments,
    ToolCallStart,
)
from millstream.text.vocabulary import Vocabulary

BlockKind = Literal["thinking", "text", "tool_use"]

_escape = json.encoder.encode_basestring_ascii
_MEMBERS: dict[BlockKind, tuple[str, str]] = {
    "thinking": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "tool_use": ("input_json_delta", "partial_json"),
}
"""Kind of a block -> the type of its deltas, and the member that has what is new."""
_REASONS: dict[ShownReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
}
_AFTER = "}}\n\n"


class MessageBuilder(AnswerBuilder):
    """Makes the events or the body of one message.

    assembler: of the answer; it knows how long the prompt is and what of it was cached.
    hides_thoughts: they are in the signature of their block, sealed, and not to be read.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        vocabulary: Vocabulary,
        assembler: TextAssembler,
        hides_thoughts: bool = False,
    ) -> None:
        super().__init__(identity, chunk_kind="message", report=Report(), vocabulary=vocabulary)
        self._assembler = assembler
        self._hides_thoughts = hides_thoughts
        self._is_started = False
        self._kind: BlockKind | None = None
        self._number = -1
        self._before_news = ""
        self._blank = ""  # the white space that a text would begin with, if one comes
        self._hidden: list[str] = []
        self._has_calls = False
        self._ending: dict[str, Any] = {}

    def chunk(self, index: int, delta: TextDelta, usage: dict[str, Any] | None = None) -> bytes:
        """The events of a delta: the opening one if it is the first, then what is new."""
        events = ""
        if not self._is_started:
            self._is_started = True
            events = self._opening(len(delta.token_ids))
        if delta.parts is None:
            if delta.text:
                events += self._text(delta.text)
        else:
            for part in delta.parts:
                events += self._part(part)
        if delta.finish_reason is not None:
            events += self._finish(delta)
        return events.encode()

    def end(self, usage: dict[str, Any]) -> bytes:
        """Why the message ended, what it cost, and the end mark."""
        news = {"type": "message_delta", "delta": self._ending, "usage": messages_usage(usage)}
        return (_event(news) + _event({"type": "message_stop"})).encode()

    def failure(self, error: MillstreamError) -> bytes:
        return messages_error_event(error, request_id=self._identity.request_id)

    def whole(self, choices: Sequence[WholeChoice], usage: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        deltas = choices[0].deltas
        blocks = blocks_of(deltas, id_of=self._id_of_call, hides_thoughts=self._hides_thoughts)
        self._has_calls = bool(choices[0].said.calls)
        ending = self._ended(deltas[-1])
        return self._message(blocks, ending, messages_usage(usage))

    def _opening(self, num_generated: int) -> str:
        assembler = self._assembler
        usage = usage_of(
            num_prompt=assembler.num_prompt,
            num_cached=assembler.num_cached,
            num_generated=num_generated,
            num_thinking=0,
        )
        message = self._message([], {"stop_reason": None, "stop_sequence": None}, usage)
        return _event({"type": "message_start", "message": message})

    def _message(
        self, content: list[dict[str, Any]], ending: dict[str, Any], usage: dict[str, Any]
    ) -> dict[str, Any]:
        identity = self._identity
        head = {"id": identity.completion_id, "type": "message", "role": "assistant"}
        return head | {"model": identity.model, "content": content} | ending | {"usage": usage}

    def _part(self, part: Delta) -> str:
        match part:
            case Content(text):
                return self._text(text) if text else ""
            case Reasoning(text):
                return self._thought(text) if text else ""
            case ToolCallStart(number, name):
                self._has_calls = True
                return self._begin("tool_use", tool_use_block(self._id_of_call(number), name))
            case ToolCallArguments(_, text):
                return self._before_news + _escape(text) + _AFTER if text else ""

    def _thought(self, text: str) -> str:
        events = "" if self._kind == "thinking" else self._begin("thinking", thinking_block("", ""))
        if self._hides_thoughts:
            self._hidden.append(text)
            return events
        return events + self._before_news + _escape(text) + _AFTER

    def _text(self, text: str) -> str:
        if self._kind == "text":
            return self._before_news + _escape(text) + _AFTER
        text = self._blank + text
        if not text.strip():
            self._blank = text
            return ""
        return self._begin("text", text_block("")) + self._before_news + _escape(text) + _AFTER

    def _begin(self, kind: BlockKind, block: dict[str, Any]) -> str:
        """The end of the open block and the beginning of another."""
        events = self._end_block()
        self._kind, self._blank = kind, ""
        self._number += 1
        delta_type, member = _MEMBERS[kind]
        delta = f'{{"type":"{delta_type}","{member}":'
        self._before_news = (
            "event: content_block_delta\n"
            f'data: {{"type":"content_block_delta","index":{self._number},"delta":{delta}'
        )
        news = {"type": "content_block_start", "index": self._number, "content_block": block}
        return events + _event(news)

    def _end_block(self) -> str:
        if self._kind is None:
            return ""
        events = ""
        if self._kind == "thinking":
            signature = sealed("".join(self._hidden)) if self._hides_thoughts else SIGNATURE
            delta = {"type": "signature_delta", "signature": signature}
            self._hidden = []
            news = {"type": "content_block_delta", "index": self._number, "delta": delta}
            events = _event(news)
        self._kind = None
        return events + _event({"type": "content_block_stop", "index": self._number})

    def _finish(self, delta: TextDelta) -> str:
        events = ""
        if self._number < 0 and self._blank:  # an answer of white space is one
            text = self._blank
            events = (
                self._begin("text", text_block("")) + self._before_news + _escape(text) + _AFTER
            )
        self._ending = self._ended(delta)
        return events + self._end_block()

    def _ended(self, delta: TextDelta) -> dict[str, Any]:
        """Why the message ended."""
        reason = shown_reason(delta.finish_reason, has_calls=self._has_calls, is_tool_named=False)
        assert reason is not None, "asked before it has ended"
        self.finish_reasons[0] = reason
        if isinstance(delta.stop_reason, str):
            return {"stop_reason": "stop_sequence", "stop_sequence": delta.stop_reason}
        return {"stop_reason": _REASONS[reason], "stop_sequence": None}

    def _id_of_call(self, number: int) -> str:
        return call_id(self._identity.completion_id, choice=0, index=number)


def _event(news: dict[str, Any]) -> str:
    return f"event: {news['type']}\ndata: {json.dumps(news)}\n\n"
