"""What the engine is asked to do, and what it answers: plain frozen data.

Rules: everything here is validated before it is built, so nothing past this point re-checks it;
what crosses the process boundary holds only integers, floats and strings. What is made once per
token is a named tuple: a frozen dataclass takes three times as long to build.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple

from millstream.errors import ContextTooLong, OutOfMemory, Overloaded

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is drawn from the logits of one sequence. The defaults change nothing.

    temperature: 0 means greedy (argmax); otherwise logits are divided by it.
    top_k: keep the k most probable tokens; 0 keeps all.
    top_p: keep the smallest set whose probability reaches it (Holtzman et al. 2019); 1 keeps all.
    min_p: drop tokens less probable than min_p times the most probable one; 0 keeps all.
    typical_p: locally typical sampling (Meister et al. 2022); 1 keeps all.
    repetition_penalty: logits of tokens of prompt and answer are divided (if positive) or
        multiplied (if negative) by it (Keskar et al. 2019).
    frequency_penalty, presence_penalty: subtracted for each, or any, occurrence in the answer, as
        OpenAI defines them.
    logit_bias: (token id, number added to its logit).
    bad_words: token sequences that must not be completed.
    allowed_token_ids: only these may be drawn; empty allows all.
    min_tokens: none of the request's stop tokens is drawn before so many tokens are generated.
    seed: key of this request's own random stream, 0 <= seed < 2**64.
    logprobs: how many of the most probable tokens to report with each token (0: only the token's
        own log probability); None reports nothing.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    allowed_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    seed: int = 0
    logprobs: int | None = None

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """The form of an answer. Equal texts are compiled once.

    text: the grammar in llguidance's own notation.
    starts_after: the token that ends the reasoning. What comes before it is free, except that the
        answer cannot end there. None: there is no reasoning, the whole answer has this form.
    opens_with: the token that begins the reasoning, where the prompt has not begun it: the answer
        starts with this token, or with the form at once.
    """

    text: str
    starts_after: int | None = None
    opens_with: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One generation.

    id: chosen by the server, unique for its lifetime; never a client's text.
    prompt: token ids, at least one.
    max_tokens: upper bound of generated tokens, at least one.
    stop_token_ids: generation ends when one of them is sampled (it is reported, not shown as text).
    priority: smaller runs first; ties in order of arrival.
    cache_salt: requests share cached prefixes only with requests of the same salt.
    prompt_logprobs: like SamplingParams.logprobs, for the prompt's tokens from the second one on.
    follows: id of a request with the same prompt. This one waits until that one's prompt is
        computed, and takes its blocks from the prefix cache.
    grammar: the form that the answer must have.
    """

    id: int
    prompt: tuple[int, ...]
    sampling: SamplingParams
    max_tokens: int
    stop_token_ids: tuple[int, ...] = ()
    priority: int = 0
    cache_salt: str = ""
    prompt_logprobs: int | None = None
    follows: int | None = None
    grammar: Grammar | None = None


class TokenLogprob(NamedTuple):
    """The log probability of one token, by the model's own distribution: before temperature,
    penalties and filters.

    rank: 1 is the most probable token. top: (token id, log probability), most probable first.
    """

    token_id: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]


class TokenEvent(NamedTuple):
    """New tokens of one request; `finish_reason` is set on its last event.

    num_cached: prompt tokens that were served from the prefix cache.
    logprobs: one for each of token_ids, or none at all.
    prompt_logprobs: for the next tokens of the prompt; come before the first token or with it.
    """

    request_id: int
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    num_cached: int
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()


class FailureCode(str, Enum):
    """Why a request ended without finishing. The values are the `code` of errors on the wire."""

    STEP_FAILED = "step_failed"
    """The step that computed the request raised."""
    OUT_OF_MEMORY = OutOfMemory.code
    """There was no memory for the step that computed the request."""
    NAN_LOGITS = "nan_logits"
    """The model produced logits that are not finite."""
    NO_TOKEN_ALLOWED = "no_token_allowed"
    """The request's own constraints forbid every token."""
    QUEUED_TOO_LONG = Overloaded.code
    """The request did not get to run in time."""
    TOO_LONG = ContextTooLong.code
    """The request exceeds the KV cache."""


@dataclass(frozen=True, slots=True)
class FailureEvent:
    """The end of one request that did not finish. `code` is for machines, `message` for people."""

    request_id: int
    code: FailureCode
    message: str
