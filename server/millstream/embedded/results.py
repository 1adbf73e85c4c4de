"""What the caller gets: deltas while an answer grows, answers when it is whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millstream.core.request import FinishReason, TokenLogprob
from millstream.errors import GenerationFailed, MillstreamError
from millstream.text.shown_logprobs import TextLogprob


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts. cached_tokens: those of the prompt that the prefix cache held."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What is new since the last one; `finish_reason` and `usage` on the last one only.

    text: may be empty while a character, or what may become a stop string, is incomplete.
    token_ids: every generated token, those that are no text included.
    logprobs: one for each token of `text` if asked for; prompt_logprobs: see the option.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    logprobs: tuple[TextLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One whole answer. Where `error` is set, the rest is what had arrived before it.

    token_ids: every generated token, the one that ended the turn included.
    finish_reason: "stop" or "length"; None with an error.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    usage: Usage
    logprobs: tuple[TextLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    error: MillstreamError | None = None


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


def join(deltas: Sequence[Delta], usage: Usage, error: MillstreamError | None = None) -> Answer:
    """The answer that these deltas make."""
    return Answer(
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(token for delta in deltas for token in delta.token_ids),
        finish_reason=deltas[-1].finish_reason if deltas else None,
        usage=usage,
        logprobs=tuple(entry for delta in deltas for entry in delta.logprobs),
        prompt_logprobs=tuple(entry for delta in deltas for entry in delta.prompt_logprobs),
        error=error,
    )
