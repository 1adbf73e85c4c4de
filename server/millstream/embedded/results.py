"""What the caller gets: deltas while an answer grows, answers when it is whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from millstream.core.request import TokenLogprob
from millstream.core.status import Statistics
from millstream.errors import GenerationFailed, MillstreamError
from millstream.generation.contract import ShownReason
from millstream.text.shown_logprobs import TextLogprob


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of a request, all its choices together.

    cached_tokens: those of the prompt that the prefix cache held. reasoning_tokens: those of the
    answer that the model thought.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model makes. arguments: a JSON object, as the model wrote it.

    In a delta: what is new of the call. `id` and `name` are there once, at its beginning.
    """

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What is new of one choice since its last delta; its `finish_reason` comes with the last one,
    the `usage` with the last one of all choices.

    text: may be empty while a character, or what may become a stop string, is incomplete.
    reasoning: what the model thinks before it answers. index: of the choice.
    token_ids: every generated token, those that are no text included.
    logprobs: one for each token of the text, reasoning and calls included, if asked for; without a
    template, for every token. prompt_logprobs: see the option. stop_reason: see Answer.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: ShownReason | None = None
    usage: Usage | None = None
    logprobs: tuple[TextLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    index: int = 0
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    stop_reason: str | int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One whole answer. Where `error` is set, the rest is what had arrived before it.

    text: without reasoning and calls. token_ids: every generated token, the one that ended the turn
    included. finish_reason: "stop", "length" or "tool_calls"; None with an error.
    stop_reason: the stop string, or the token of `stop_token_ids`, that ended it.
    unenforced: keywords of a schema that were left to the model. others: with `n`, further choices.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: ShownReason | None
    usage: Usage
    logprobs: tuple[TextLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    error: MillstreamError | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    stop_reason: str | int | None = None
    unenforced: tuple[str, ...] = ()
    others: tuple[Answer, ...] = ()

    @property
    def choices(self) -> tuple[Answer, ...]:
        """This answer and the others to the same prompt."""
        return (self, *self.others)

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message, for the history of the conversation."""
        content = self.text if self.text or not self.tool_calls else None
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.tool_calls
            ]
        return message


class BatchFailed(GenerationFailed):
    """Some prompts of a batch failed; the others were finished first.

    answers: all of them, in the order of the prompts; those that failed have `error` set.
    """

    def __init__(self, answers: Sequence[Answer]) -> None:
        failed = [(i, a.error) for i, a in enumerate(answers) if a.error is not None]
        index, error = failed[0]
        super().__init__(
            f"{len(failed)} of {len(answers)} prompts failed (the answers of the others are in "
            f"this exception's `answers`); prompt {index}: {error}"
        )
        self.answers = list(answers)


@dataclass(frozen=True, slots=True)
class EngineStatistics(Statistics):
    """num_open: answers that hold a place, running or waiting. num_free: how many more would be
    taken now; None where any number may wait."""

    num_open: int = 0
    num_free: int | None = None


def join(
    deltas: Sequence[Delta],
    usage: Usage,
    *,
    unenforced: tuple[str, ...] = (),
    error: MillstreamError | None = None,
) -> Answer:
    """The answer that these deltas make."""
    made = [
        _choice([delta for delta in deltas if delta.index == index], usage)
        for index in sorted({0, *(delta.index for delta in deltas)})
    ]
    made = [replace(choice, unenforced=unenforced, error=error) for choice in made]
    return replace(made[0], others=tuple(made[1:]))


def _choice(deltas: Sequence[Delta], usage: Usage) -> Answer:
    last = deltas[-1] if deltas else None
    return Answer(
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(token for delta in deltas for token in delta.token_ids),
        finish_reason=last.finish_reason if last else None,
        usage=usage,
        logprobs=tuple(entry for delta in deltas for entry in delta.logprobs),
        prompt_logprobs=tuple(entry for delta in deltas for entry in delta.prompt_logprobs),
        reasoning="".join(delta.reasoning for delta in deltas),
        tool_calls=_calls([call for delta in deltas for call in delta.tool_calls]),
        stop_reason=last.stop_reason if last else None,
    )


def _calls(news: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    calls: dict[int, ToolCall] = {}
    for new in news:
        begun = calls.get(new.index)
        if begun is not None:
            new = ToolCall(begun.index, begun.id, begun.name, begun.arguments + new.arguments)
        calls[new.index] = new
    return tuple(calls.values())
