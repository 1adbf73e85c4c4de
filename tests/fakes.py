"""A runner without a model, strict about memory.

It keeps what was written to every slot of its "KV cache" and computes each next token from what
it reads back through the block table. A scheduler that hands out a block twice, forgets to compute
a token or reuses a stale prefix gets other tokens than the request gets alone.
`tests/model/test_runner.py` checks that the real runner answers the same plans in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from millstream.core.info import EngineInfo
from millstream.core.plan import Chunk, Plan, StepOutput
from millstream.core.request import Request, SamplingParams, TokenLogprob

VOCAB = 50


def next_token(tokens: tuple[int, ...], *, seed: int = 0, counter: int = 0) -> int:
    """The token that follows `tokens` in the fake language."""
    text = repr((tokens, seed, counter)).encode()
    return int.from_bytes(blake2b(text, digest_size=4).digest(), "big") % VOCAB


def fake_logprob(known: tuple[int, ...], token: int) -> TokenLogprob:
    """Depends on everything before the token, as a real one does."""
    return TokenLogprob(token, -float(next_token((*known, token))), 1, ())


def alone(request: Request) -> list[int]:
    """What a request answers when nothing else runs: the definition, no scheduler involved."""
    tokens = list(request.prompt)
    answer: list[int] = []
    while len(answer) < request.max_tokens:
        token = next_token(tuple(tokens), seed=request.sampling.seed, counter=len(answer))
        tokens.append(token)
        answer.append(token)
        if token in request.stop_token_ids:
            break
    return answer


def make_request(
    request_id: int,
    prompt: tuple[int, ...],
    *,
    max_tokens: int = 8,
    stop_token_ids: tuple[int, ...] = (),
    priority: int = 0,
    cache_salt: str = "",
    logprobs: int | None = None,
    prompt_logprobs: int | None = None,
    follows: int | None = None,
) -> Request:
    return Request(
        id=request_id,
        prompt=prompt,
        sampling=SamplingParams(seed=request_id % 3, logprobs=logprobs),
        max_tokens=max_tokens,
        stop_token_ids=stop_token_ids,
        priority=priority,
        cache_salt=cache_salt,
        prompt_logprobs=prompt_logprobs,
        follows=follows,
    )


def fake_info(
    *, num_blocks: int = 64, block_size: int = 4, max_step_tokens: int = 64
) -> EngineInfo:
    return EngineInfo(
        architecture="Fake",
        num_parameters=0,
        device="none",
        dtype="none",
        attention_backend="none",
        num_blocks=num_blocks,
        block_size=block_size,
        kv_cache_bytes=0,
        max_context=num_blocks * block_size,
        max_step_tokens=max_step_tokens,
        vocab_size=VOCAB,
        stop_token_ids=(),
    )


def scores_alone(request: Request) -> list[TokenLogprob]:
    """The log probabilities of the prompt, by definition."""
    if request.prompt_logprobs is None:
        return []
    prompt = request.prompt
    return [fake_logprob(prompt[:end], prompt[end]) for end in range(1, len(prompt))]


def logprobs_alone(request: Request, answer: list[int]) -> list[TokenLogprob]:
    """The log probabilities of the first tokens of an answer, by definition."""
    if request.sampling.logprobs is None:
        return []
    tokens = (*request.prompt, *answer)
    first = len(request.prompt)
    return [fake_logprob(tokens[:end], tokens[end]) for end in range(first, len(tokens))]


class FakeRunner:
    """Implements the engine loop's Runner. `failing`: indices of steps that raise."""

    def __init__(self, info: EngineInfo, *, failing: frozenset[int] = frozenset()) -> None:
        self.info = info
        self._slots: dict[int, int] = {}
        self._failing = failing
        self.scrubbed: list[int] = []
        self.num_steps = 0
        self.largest_step = 0

    def scrub(self, blocks: Sequence[int]) -> None:
        self.scrubbed += blocks

    def step(self, plan: Plan) -> StepOutput:
        index, self.num_steps = self.num_steps, self.num_steps + 1
        self.largest_step = max(self.largest_step, plan.num_tokens)
        if index in self._failing:
            raise RuntimeError("planted failure")
        size = self.info.block_size
        for chunk in plan.chunks:
            for position, token in enumerate(chunk.tokens, chunk.start):
                block = chunk.block_table[position // size]
                self._slots[block * size + position % size] = token
        sampled: list[int] = []
        logprobs: dict[int, TokenLogprob] = {}
        scores: dict[int, tuple[TokenLogprob, ...]] = {}
        for chunk in plan.chunks:
            if chunk.scored:
                scores[chunk.request_id] = tuple(
                    self._score(chunk, position) for position in chunk.scored
                )
            if chunk.sampling is not None:
                end = chunk.start + len(chunk.tokens)
                known = self._known(chunk, end)
                token = next_token(known, seed=chunk.sampling.seed, counter=chunk.num_generated)
                sampled.append(token)
                if chunk.sampling.logprobs is not None:
                    logprobs[chunk.request_id] = fake_logprob(known, token)
        return StepOutput(sampled, logprobs, scores)

    def _known(self, chunk: Chunk, end: int) -> tuple[int, ...]:
        """What the cache holds of the first `end` tokens."""
        size = self.info.block_size
        slots = (chunk.block_table[p // size] * size + p % size for p in range(end))
        return tuple(self._slots[slot] for slot in slots)

    def _score(self, chunk: Chunk, position: int) -> TokenLogprob:
        return fake_logprob(self._known(chunk, position + 1), chunk.history[position + 1])
