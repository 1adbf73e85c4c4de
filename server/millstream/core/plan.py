"""One step of the engine: what to compute, and what came of it.

Rules: a plan is used for one step and not kept; its lists are borrowed from the scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from millstream.core.request import Request, SamplingParams, TokenLogprob

INVALID_TOKEN = -1
"""What a runner returns instead of a token where the logits were not finite."""

IMPOSSIBLE_TOKEN = -2
"""The same where the request's own constraints forbid every token."""

REJECTED_TOKEN = -4
"""The same for a chunk that does not count, as if it had not been computed; see settling.py."""

UNKNOWN_TOKEN = -1
"""In a chunk: the token that the step before this one is still drawing for the same request."""


class StateMove(NamedTuple):
    """A stretch of a chunk, and where its sequence's state is before it and goes to after it.

    length: in tokens. source: the slot to read; None at the start of a sequence, where there is no
    state. target: the slot to write, which may be the source.
    """

    length: int
    source: int | None
    target: int


class Chunk(NamedTuple):
    """The part of one sequence that a step computes.

    tokens: ids at positions start .. start + len(tokens) - 1; just UNKNOWN_TOKEN where the step
        before draws it. Then `history` lacks it until that step is committed.
    block_table: ids of the KV blocks of this sequence, in order.
    history: all known tokens of the sequence, prompt and answer; only read.
    is_last: whether the token that follows is to be drawn; False when the prompt goes on later.
    score_from: position from which on the log probabilities of the prompt's next tokens are
        wanted, or None.
    states: where the sequence's state goes, stretch after stretch; empty for models without.
    assumed: guesses at the tokens up to the chunk's end that `history` lacks. The chunk has one
        token, the last of them. Before it in the plan is one of the same request with one guess
        less. It counts only if just these tokens are drawn.
    """

    request: Request
    tokens: Sequence[int]
    start: int
    block_table: list[int]
    history: list[int]
    is_last: bool
    score_from: int | None = None
    states: tuple[StateMove, ...] = ()
    assumed: tuple[int, ...] = ()

    @property
    def request_id(self) -> int:
        return self.request.id

    @property
    def sampling(self) -> SamplingParams | None:
        """How to draw the token that follows, or None."""
        return self.request.sampling if self.is_last else None

    @property
    def num_generated(self) -> int:
        """Tokens generated so far, and assumed; the counter of the request's random stream."""
        return len(self.history) + len(self.assumed) - len(self.request.prompt)

    @property
    def scored(self) -> range:
        """Positions whose logits score the prompt token after them."""
        if self.score_from is None:
            return range(0)
        end = min(self.start + len(self.tokens), len(self.request.prompt) - 1)
        return range(max(self.start, self.score_from), end)


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: decode chunks (one token each) first, those of guesses after them, then prompts."""

    chunks: tuple[Chunk, ...]

    @property
    def num_tokens(self) -> int:
        return sum(len(chunk.tokens) for chunk in self.chunks)

    @property
    def num_sampled(self) -> int:
        return sum(chunk.is_last for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a runner made of a plan.

    tokens: one id for each chunk with `is_last`, in order; INVALID_TOKEN where logits were not
        finite, IMPOSSIBLE_TOKEN where the request forbids every token, REJECTED_TOKEN where the
        chunk does not count.
    late: request ids whose token a step planned ahead could not take from the device: what that
        step computes for them is void.
    logprobs: by the number of the drawn token, for requests that asked.
    prompt_logprobs: by request id, one for each of the chunk's `scored` positions.
    """

    tokens: Sequence[int]
    logprobs: dict[int, TokenLogprob] = field(default_factory=dict)
    prompt_logprobs: dict[int, tuple[TokenLogprob, ...]] = field(default_factory=dict)
    late: frozenset[int] = frozenset()
