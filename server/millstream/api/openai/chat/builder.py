"""A chat completion, as events ready for the socket or as one body. Pure.

Framing facts kept here beside those of generate/builder.py: `role` once per choice, in its first
delta; id and name once per tool call; `content` is never missing from a delta, so naive loops can
print it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from millstream.api.openai.generate.answer import Identity, Report, WholeChoice
from millstream.api.openai.generate.answer_builder import AnswerBuilder
from millstream.api.openai.generate.logprob_shapes import content_logprobs, prompt_logprobs
from millstream.api.openai.generate.usage import usage_before
from millstream.core.request import FinishReason, TokenLogprob
from millstream.generation.contract import ShownReason, shown_reason
from millstream.text.assembler import TextDelta
from millstream.text.parsing.output import (
    Content,
    Delta,
    ParsedAnswer,
    Reasoning,
    ToolCallArguments,
    ToolCallStart,
)
from millstream.text.vocabulary import Vocabulary

_escape = json.encoder.encode_basestring_ascii
_NO_DELTA = TextDelta("")


class ChatBuilder(AnswerBuilder):
    """Makes the events or the body of one chat request.

    prompt, prompt_scores: what the model read, and its log probabilities, which are complete when
    the first token comes; for clients that want to read them.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        report: Report,
        vocabulary: Vocabulary,
        prompt: Sequence[int] = (),
        prompt_scores: Sequence[TokenLogprob] = (),
    ) -> None:
        super().__init__(
            identity, chunk_kind="chat.completion.chunk", report=report, vocabulary=vocabulary
        )
        self._report = report
        self._hides_reasoning = report.hides_reasoning
        self._prompt, self._prompt_scores = prompt, prompt_scores
        self._calling: set[int] = set()  # choices that have called a tool
        self._owes_prompt = report.token_ids
        self._after = f'}},"logprobs":null,"finish_reason":null}}]{self._tail}'

    def chunk(self, index: int, delta: TextDelta, usage: dict[str, Any] | None = None) -> bytes:
        """The events of a choice's delta: the opening one if it is the first, then what is new,
        then the finishing one if it is the last."""
        before = self._before.get(index)
        events = ""
        if before is None:
            before = self._before[index] = self._start(index)
            events = self._opening(index, usage and usage_before(delta, usage))
        if delta.parts is not None:
            events += self._parsed(index, delta.parts, delta, usage)
        elif self._is_plain:
            if delta.text:
                events += before + _escape(delta.text) + self._after
        elif delta.text or self._report.is_told_of(delta):
            events += before + self._detailed(delta, usage)
        if delta.finish_reason is not None:
            ended = self._finish(index, delta.finish_reason, has_calls=index in self._calling)
            reason = f'"{ended}","stop_reason":{json.dumps(delta.stop_reason)}'
            events += before + self._detailed(_NO_DELTA, usage, reason=reason)
        return events.encode()

    def whole(self, choices: Sequence[WholeChoice], usage: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        answer = self._identity.head("chat.completion")
        answer["choices"] = [self._whole(index, choice) for index, choice in enumerate(choices)]
        answer["usage"] = usage
        report, scores = self._report, self._prompt_scores
        # Null unless asked for: as in vLLM, so that clients may index them.
        answer["prompt_token_ids"] = list(self._prompt) if report.token_ids else None
        answer["prompt_logprobs"] = (
            prompt_logprobs(scores, self._vocabulary) if report.prompt_logprobs else None
        )
        return answer

    def _whole(self, index: int, choice: WholeChoice) -> dict[str, Any]:
        report, logprobs = self._report, None
        if report.logprobs:
            logprobs = content_logprobs(choice.logprobs, self._vocabulary)
        return {
            "index": index,
            "message": self._message(index, choice.said),
            "logprobs": logprobs,
            "finish_reason": self._finish(
                index, choice.finish_reason, has_calls=bool(choice.said.calls)
            ),
            "stop_reason": choice.stop_reason,
            "token_ids": choice.token_ids if report.token_ids else None,
        }

    def _message(self, choice: int, said: ParsedAnswer) -> dict[str, Any]:
        content = said.content if said.content or not said.calls else None
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if said.reasoning and not self._hides_reasoning:
            # Two names of one thing; each is the only one that some clients know.
            message |= {"reasoning_content": said.reasoning, "reasoning": said.reasoning}
        if said.calls:
            message["tool_calls"] = [
                self._identity.call(choice, index, call.name, call.arguments)
                for index, call in enumerate(said.calls)
            ]
        return message

    def _finish(self, index: int, reason: FinishReason | None, *, has_calls: bool) -> ShownReason:
        is_named = self._report.is_tool_named
        said = shown_reason(reason, has_calls=has_calls, is_tool_named=is_named)
        assert said is not None, "asked before it has ended"
        self.finish_reasons[index] = said
        return said

    def _start(self, index: int) -> str:
        return f'data: {self._head},"choices":[{{"index":{index},"delta":{{"content":'

    def _opening(self, index: int, usage: dict[str, Any] | None) -> str:
        """The first event of a choice, the only one with a role; the very first has the prompt."""
        head = self._head
        if self._owes_prompt:
            head += f',"prompt_token_ids":{json.dumps(self._prompt)}'
            self._owes_prompt = False
        start = f'data: {head},"choices":[{{"index":{index},"delta":{{"role":"assistant","content":'
        return start + self._detailed(_NO_DELTA, usage)

    def _parsed(
        self, index: int, parts: Sequence[Delta], delta: TextDelta, usage: dict[str, Any] | None
    ) -> str:
        """One event for each part; the first has all else that the delta brings."""
        before, events = self._before[index], ""
        for part in parts:
            if self._hides_reasoning and isinstance(part, Reasoning):
                continue
            fields = self._fields(index, part)
            if self._is_plain:
                events += before + fields + self._after
            else:
                events += before + self._detailed(delta, usage, fields=fields)
            delta = _NO_DELTA
        if self._report.is_told_of(delta):
            events += before + self._detailed(delta, usage, fields='""')
        return events

    def _fields(self, index: int, part: Delta) -> str:
        """What an event says of a part, from the value of `content` on."""
        match part:
            case Content(text):
                return _escape(text)
            case Reasoning(text):
                escaped = _escape(text)
                return f'"","reasoning_content":{escaped},"reasoning":{escaped}'
            case ToolCallStart(call, name):
                self._calling.add(index)
                news = {"index": call} | self._identity.call(index, call, name)
            case ToolCallArguments(call, text):
                news = {"index": call, "function": {"arguments": text}}
        return f'"","tool_calls":[{json.dumps(news)}]'

    def _detailed(
        self,
        delta: TextDelta,
        usage: dict[str, Any] | None,
        *,
        reason: str = "null",
        fields: str | None = None,
    ) -> str:
        """An event from its text on, with all that was asked for. fields: instead of the text."""
        report = self._report
        logprobs = "null"
        if delta.logprobs:
            logprobs = json.dumps(content_logprobs(delta.logprobs, self._vocabulary))
        token_ids = f',"token_ids":{json.dumps(delta.token_ids)}' if report.token_ids else ""
        tail = f',"usage":{json.dumps(usage)}}}\n\n' if report.running_usage else self._tail
        finish = f'}},"logprobs":{logprobs},"finish_reason":{reason}{token_ids}}}]'
        return (_escape(delta.text) if fields is None else fields) + finish + tail
