"""What the engine is asked to do, and what it answers: plain frozen data.

Rules: everything here is validated before it is built, so nothing past this point re-checks it;
everything here crosses the process boundary, so it holds only integers, floats and strings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]

INVALID_TOKEN = -1
"""What a runner returns instead of a token where the logits were not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is drawn from the logits of one sequence.

    temperature: 0 means greedy (argmax); otherwise logits are divided by it.
    top_k: keep the k most probable tokens; 0 keeps all.
    top_p: keep the smallest set whose probability reaches it (Holtzman et al. 2019); 1 keeps all.
    seed: key of this request's own random stream, 0 <= seed < 2**64.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One generation.

    id: chosen by the server, unique for its lifetime; never a client's text.
    prompt: token ids, at least one.
    max_tokens: upper bound of generated tokens, at least one.
    stop_token_ids: generation ends when one of them is sampled (it is reported, not shown as text).
    priority: smaller runs first; ties in order of arrival.
    cache_salt: requests share cached prefixes only with requests of the same salt.
    """

    id: int
    prompt: tuple[int, ...]
    sampling: SamplingParams
    max_tokens: int
    stop_token_ids: tuple[int, ...] = ()
    priority: int = 0
    cache_salt: str = ""


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """New tokens of one request; `finish_reason` is set on its last event.

    num_cached: prompt tokens that were served from the prefix cache.
    """

    request_id: int
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    num_cached: int


@dataclass(frozen=True, slots=True)
class FailureEvent:
    """The end of one request that did not finish. `code` is for machines, `message` for people."""

    request_id: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """The part of one sequence that a step computes.

    tokens: ids at positions start .. start + len(tokens) - 1.
    block_table: ids of the KV blocks of this sequence, in order; borrowed from the scheduler, so
        readers must not keep it past the step.
    sampling: how to draw the token that follows, or None when the prompt goes on in a later step.
    num_generated: tokens generated so far; the counter of the request's random stream.
    """

    request_id: int
    tokens: tuple[int, ...]
    start: int
    block_table: list[int]
    sampling: SamplingParams | None
    num_generated: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: decode chunks (one token each) first, then prompt chunks."""

    chunks: tuple[Chunk, ...]

    @property
    def num_tokens(self) -> int:
        return sum(len(chunk.tokens) for chunk in self.chunks)

    @property
    def num_sampled(self) -> int:
        return sum(chunk.sampling is not None for chunk in self.chunks)
