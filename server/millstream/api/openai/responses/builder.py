"""From the deltas of an answer to the items and events of the Responses API. Pure.

Order of the events, as the API has it: created, in progress, then each item from its announcement
to its end, then one event that has the whole response. Items do not overlap: what belongs to
another one ends the item before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from millstream.api.openai.generate.logprob_shapes import content_logprobs
from millstream.api.openai.responses.calls import CallItem, CustomCallItem, FunctionCallItem
from millstream.api.openai.responses.frames import Frames
from millstream.api.openai.responses.items import (
    ItemStatus,
    MessageItem,
    OpenItem,
    ReasoningItem,
)
from millstream.generation.contract import call_id
from millstream.intake.responses.tools import ToolNames
from millstream.text.assembler import TextDelta
from millstream.text.parsing.output import (
    Content,
    Delta,
    Reasoning,
    ToolCallArguments,
    ToolCallStart,
)
from millstream.text.shown_logprobs import TextLogprob
from millstream.text.vocabulary import Vocabulary


class OutputBuilder:
    """Makes the output of one answer.

    response_id: it and its items have the same letters. vocabulary: given if log probabilities are
    wanted. encodes_reasoning: see ReasoningItem.
    """

    def __init__(
        self,
        response_id: str,
        *,
        tools: ToolNames,
        vocabulary: Vocabulary | None = None,
        encodes_reasoning: bool = False,
    ) -> None:
        self._response_id = response_id
        self._letters = response_id.partition("_")[2]
        self._tools = tools
        self._vocabulary = vocabulary
        self._encodes_reasoning = encodes_reasoning
        self._items: list[OpenItem] = []
        self._open: OpenItem | None = None
        self._call: int | None = None
        self._blanks = ""
        self._waiting: list[TextLogprob] = []
        self.frames = Frames()

    def output(self) -> list[dict[str, Any]]:
        """The items so far, of which the last one may be growing."""
        return [item.shown() for item in self._items]

    def announce(self, kind: str, response: dict[str, Any]) -> bytes:
        """An event that has the whole response."""
        return self.frames.of_object(kind, {"response": response})

    def resume(self, said: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """The events of what an answer that was cut has said, in which this one goes on.

        said: its items, thoughts and texts, as they are shown.
        """
        events: list[bytes] = []
        for item in said:
            for part in item["content"]:
                if item["type"] == "reasoning":
                    events += self._beside(Reasoning(part["text"]))
                    continue
                message = self._message()
                events += self._begin(message)
                events += message.add(part["text"], part.get("logprobs"))
        return events

    def push(self, delta: TextDelta) -> list[bytes]:
        """The events of a delta."""
        if self._vocabulary is not None:
            # Their text may be held back by a parser, and be shown by a later delta.
            self._waiting += delta.logprobs
        if delta.parts is None:
            return self._say(delta.text) if delta.text else []
        events: list[bytes] = []
        for part in delta.parts:
            events += self._say(part.text) if isinstance(part, Content) else self._beside(part)
        if self._waiting and delta.parts and not isinstance(delta.parts[-1], Content):
            self._waiting.clear()
        return events

    def close(self, status: ItemStatus) -> list[bytes]:
        """The events that end the last item. An answer that said nothing is an empty text."""
        events: list[bytes] = []
        if not self._items:
            message = self._message()
            events += self._begin(message)
            if self._blanks:
                events += self._add(message, self._blanks)
        return [*events, *self._end(status)]

    def _say(self, text: str) -> list[bytes]:
        item = self._open
        if isinstance(item, MessageItem):
            return self._add(item, text)
        # Blanks between items are no text of their own.
        self._blanks += text
        if self._items and not self._blanks.strip():
            return []
        message = self._message()
        events = self._begin(message)
        text, self._blanks = self._blanks, ""
        return [*events, *self._add(message, text)]

    def _add(self, message: MessageItem, text: str) -> list[bytes]:
        return message.add(text, self._scores(text) if self._waiting else None)

    def _beside(self, part: Delta) -> list[bytes]:
        """The events of a thought or a call."""
        match part:
            case Reasoning(text):
                item = self._open
                if isinstance(item, ReasoningItem):
                    return item.add(text)
                thought = ReasoningItem(
                    self.frames,
                    self._id("rs"),
                    index=self._next,
                    is_encoded=self._encodes_reasoning,
                )
                return [*self._begin(thought), *thought.add(text)]
            case ToolCallStart(index, name):
                self._call = index
                return self._begin(self._new_call(index, name))
            case ToolCallArguments(index, text):
                assert self._open is not None, "arguments follow the start of their call"
                assert index == self._call, "calls come one by one"
                return self._open.add(text)
        raise AssertionError(part)

    def _new_call(self, number: int, name: str) -> CallItem:
        origin = self._tools.origin(name)
        kind, prefix = (
            (CustomCallItem, "ctc") if origin.kind == "custom" else (FunctionCallItem, "fc")
        )
        return kind(
            self.frames,
            self._id(prefix),
            index=self._next,
            call_id=call_id(self._response_id, choice=0, index=number),
            origin=origin,
        )

    def _message(self) -> MessageItem:
        return MessageItem(self.frames, self._id("msg"), index=self._next)

    def _begin(self, item: OpenItem) -> list[bytes]:
        events = self._end("completed")
        self._items.append(item)
        self._open = item
        if not isinstance(item, MessageItem):
            self._blanks = ""
        return [*events, *item.open()]

    def _end(self, status: ItemStatus) -> list[bytes]:
        item, self._open = self._open, None
        return [] if item is None else item.close(status)

    @property
    def _next(self) -> int:
        return len(self._items)

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._letters}{self._next:02x}"

    def _scores(self, text: str) -> list[dict[str, Any]]:
        """Those of the tokens that made this text, the last that came: others made none."""
        entries: list[TextLogprob] = []
        num_left = len(text)
        for entry in reversed(self._waiting):
            if num_left <= 0 and entry.text:
                break
            num_left -= len(entry.text)
            entries.append(entry)
        self._waiting.clear()
        assert self._vocabulary is not None, "scores were asked for"
        content: list[dict[str, Any]] = content_logprobs(entries[::-1], self._vocabulary)["content"]
        return content
