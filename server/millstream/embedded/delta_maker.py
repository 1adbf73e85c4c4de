"""From the text of a request's choices to the deltas that its caller reads. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.core.request import TokenLogprob
from millstream.embedded.asking import Asked
from millstream.embedded.results import Delta, ToolCall, Usage
from millstream.generation.choices import Choice
from millstream.generation.contract import call_id, is_tool_named, shown_reason
from millstream.intake.requests.chat import ChatRequest
from millstream.text.assembler import TextAssembler, TextDelta
from millstream.text.parsing.output import Content, Reasoning, ToolCallArguments, ToolCallStart


class DeltaMaker:
    """Counts what it has made."""

    def __init__(self, asked: Asked, choices: Sequence[Choice], *, request_id: str) -> None:
        """choices: those of one prompt. request_id: makes the ids of calls."""
        self._request_id = request_id
        self._first: TextAssembler = choices[0].assembler
        self._num_open = len(choices)
        self._hides_reasoning = False
        self._is_tool_named = False
        if isinstance(asked, ChatRequest):
            self._hides_reasoning = asked.include_reasoning is False
            self._is_tool_named = is_tool_named(asked)
        self._calling: set[int] = set()  # choices that have called a tool
        self._num_generated = self._num_reasoning = self._num_scored = 0

    @property
    def usage(self) -> Usage:
        """The request's so far."""
        return Usage(
            prompt_tokens=self._first.num_prompt,
            completion_tokens=self._num_generated,
            cached_tokens=self._first.num_cached,
            reasoning_tokens=self._num_reasoning,
        )

    def delta(self, index: int, new: TextDelta) -> Delta:
        """What the caller reads of a choice's news."""
        self._num_generated += len(new.token_ids)
        self._num_reasoning += new.num_reasoning
        text, reasoning, calls = new.text, "", tuple[ToolCall, ...]()
        if new.parts is not None:
            text = "".join(part.text for part in new.parts if isinstance(part, Content))
            if not self._hides_reasoning:
                reasoning = "".join(p.text for p in new.parts if isinstance(p, Reasoning))
            calls = tuple(
                self._call(index, part)
                for part in new.parts
                if isinstance(part, ToolCallStart | ToolCallArguments)
            )
        if new.finish_reason is not None:
            self._num_open -= 1
        return Delta(
            text=text,
            token_ids=new.token_ids,
            finish_reason=shown_reason(
                new.finish_reason,
                has_calls=index in self._calling,
                is_tool_named=self._is_tool_named,
            ),
            usage=None if self._num_open else self.usage,
            logprobs=new.logprobs,
            prompt_logprobs=self._prompt_logprobs() if index == 0 else (),
            index=index,
            reasoning=reasoning,
            tool_calls=calls,
            stop_reason=new.stop_reason,
        )

    def _call(self, choice: int, part: ToolCallStart | ToolCallArguments) -> ToolCall:
        if isinstance(part, ToolCallArguments):
            return ToolCall(part.index, "", "", part.text)
        self._calling.add(choice)
        made = call_id(self._request_id, choice=choice, index=part.index)
        return ToolCall(part.index, made, part.name, "")

    def _prompt_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Those that have come since they were last asked for."""
        scores = self._first.prompt_logprobs
        new, self._num_scored = tuple(scores[self._num_scored :]), len(scores)
        return new
