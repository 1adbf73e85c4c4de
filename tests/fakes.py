"""A runner without a model, strict about memory.

It keeps what was written to every slot of its "KV cache" and computes each next token from what
it reads back through the block table. A scheduler that hands out a block twice, forgets to compute
a token or reuses a stale prefix gets other tokens than the request gets alone. So does one that
mixes up states: where a plan says what becomes of them, a token follows from the state as well.
`tests/model/test_runner.py` checks that the real runner answers the same plans in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple

from millstream.core.archive import BlockArchive
from millstream.core.plan import (
    INVALID_TOKEN,
    REJECTED_TOKEN,
    UNKNOWN_TOKEN,
    Chunk,
    Plan,
    StepOutput,
)
from millstream.core.request import Request, SamplingParams, TokenLogprob
from millstream.core.settling import settled
from millstream.core.status import EngineInfo

VOCAB = 50


class Panic(BaseException):
    """Like the failure of native code."""

    __module__ = "pyo3_runtime"


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


class WholeSteps(ABC):
    """A runner that computes a step when it is finished, all at once."""

    plans_ahead = False
    archive: BlockArchive | None = None
    num_late_kernels: int | None = None

    def is_compiled(self, request: Request) -> bool:
        return True

    def compile(self, request: Request) -> None:
        raise AssertionError("there is nothing to compile")

    @abstractmethod
    def step(self, plan: Plan) -> StepOutput:
        """Computes the plan. Raises whatever makes the whole step fail."""

    def launch(self, plan: Plan, after: Any = None) -> Any:
        return plan

    def draw(self, launched: Any, *, is_wanted: Callable[[int], bool]) -> Any:
        return launched

    def finish(self, drawn: Any) -> StepOutput:
        return self.step(drawn)


class FakeRunner(WholeSteps):
    """The engine loop's Runner. `failing`: indices of steps that raise."""

    def __init__(self, info: EngineInfo, *, failing: frozenset[int] = frozenset()) -> None:
        self.info = info
        self._slots: dict[int, int] = {}
        self._states: dict[int, tuple[int, ...]] = {}
        self.failing = failing
        self.scrubbed: list[int] = []
        self.num_steps = 0
        self.largest_step = 0

    def scrub(self, blocks: Sequence[int]) -> None:
        self.scrubbed += blocks

    def copy_out(self, blocks: Sequence[int]) -> list[tuple[int, ...]]:
        """What is in all slots of each block."""
        size = self.info.block_size
        return [tuple(self._slots[block * size + i] for i in range(size)) for block in blocks]

    def copy_in(self, blocks: Sequence[int], contents: Sequence[tuple[int, ...]]) -> None:
        """Puts what `copy_out()` gave into other blocks."""
        for block, tokens in zip(blocks, contents, strict=True):
            for offset, token in enumerate(tokens):
                self._slots[block * self.info.block_size + offset] = token

    def step(self, plan: Plan) -> StepOutput:
        self._write(plan, {})
        output = self._read(plan)
        sampled = [chunk for chunk in plan.chunks if chunk.is_last]
        return replace(output, tokens=settled(sampled, output.tokens))

    def _write(self, plan: Plan, drawn: dict[int, int]) -> None:
        """The forward pass. drawn: by request id, for tokens that the plan lacks."""
        index, self.num_steps = self.num_steps, self.num_steps + 1
        self.largest_step = max(self.largest_step, plan.num_tokens)
        if index in self.failing:
            raise RuntimeError("planted failure")
        size = self.info.block_size
        for chunk in plan.chunks:
            tokens = chunk.tokens
            if tokens[0] == UNKNOWN_TOKEN:
                assert len(tokens) == 1
                tokens = [drawn[chunk.request_id]]
            for position, token in enumerate(tokens, chunk.start):
                block = chunk.block_table[position // size]
                self._slots[block * size + position % size] = token
            for move in chunk.states:
                before = () if move.source is None else self._states[move.source]
                self._states[move.target] = (*before, *tokens[: move.length])
                tokens = tokens[move.length :]
            assert not (chunk.states and tokens), "the moves are not of the chunk's length"

    def _read(self, plan: Plan, is_wanted: Callable[[int], bool] = lambda _: True) -> StepOutput:
        """What is drawn, before it is settled what of it counts; 0 for what nobody wants."""
        drawn: list[int] = []
        logprobs: dict[int, TokenLogprob] = {}
        scores: dict[int, tuple[TokenLogprob, ...]] = {}
        for chunk in plan.chunks:
            if not is_wanted(chunk.request_id):
                drawn += [0] * chunk.is_last
                continue
            if chunk.scored:
                scores[chunk.request_id] = tuple(
                    self._score(chunk, position) for position in chunk.scored
                )
            if chunk.sampling is not None:
                end = chunk.start + len(chunk.tokens)
                known = self._known(chunk, end)
                token = next_token(known, seed=chunk.sampling.seed, counter=chunk.num_generated)
                if chunk.sampling.logprobs is not None:
                    logprobs[len(drawn)] = fake_logprob(known, token)
                drawn.append(token)
        return StepOutput(drawn, logprobs, scores)

    def _known(self, chunk: Chunk, end: int) -> tuple[int, ...]:
        """What the cache holds of the first `end` tokens."""
        size = self.info.block_size
        slots = (chunk.block_table[p // size] * size + p % size for p in range(end))
        known = tuple(self._slots[slot] for slot in slots)
        if chunk.states and end == chunk.start + len(chunk.tokens):
            state = self._states[chunk.states[-1].target]
            return known if known == state else (*known, *state)
        return known

    def _score(self, chunk: Chunk, position: int) -> TokenLogprob:
        return fake_logprob(self._known(chunk, position + 1), chunk.history[position + 1])


class FakeLaunch(NamedTuple):
    """planted, broken: ids of requests whose logits are not finite, by themselves or in any way."""

    plan: Plan
    planted: set[int]
    broken: set[int]
    fails_to: str


@dataclass
class FakeDraws:
    """on_device: by request id, what the next step can take; output: what the host gets."""

    plan: Plan
    on_device: dict[int, int]
    output: StepOutput
    fails: bool


class LaunchingFake(FakeRunner):
    """A device with a queue. What a plan lacks it takes from what it drew last, and only that.

    failing: by its index, the part ("launch", "draw" or "finish") by which a step fails. error:
    with which it does.

    is_late: asked for each token; then the device has another one, and `finish()` says so.
    is_broken: the same; then the logits and what is written to the cache are not finite. Whoever
    reads a block with such a slot in it is broken as well, until it is scrubbed or written again.
    """

    def __init__(
        self,
        info: EngineInfo,
        *,
        failing: Mapping[int, str] | None = None,
        plans_ahead: bool = True,
        is_late: Callable[[], bool] = lambda: False,
        is_broken: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(info)
        self._fails_to = failing or {}
        self.error: BaseException = RuntimeError("planted failure")
        self.plans_ahead = plans_ahead
        self._is_late, self._is_broken = is_late, is_broken
        self.planted: set[int] = set()
        self.num_late = self.num_unwanted = 0
        self.nan_slots: set[int] = set()
        self.nan_states: set[int | None] = set()
        self._unfinished: list[FakeDraws] = []

    def scrub(self, blocks: Sequence[int]) -> None:
        super().scrub(blocks)
        self.nan_slots -= self._slots_of(blocks)

    def copy_out(self, blocks: Sequence[int]) -> list[tuple[int, ...]]:
        assert not self.nan_slots & self._slots_of(blocks), "what is not finite is copied out"
        return super().copy_out(blocks)

    def copy_in(self, blocks: Sequence[int], contents: Sequence[tuple[int, ...]]) -> None:
        super().copy_in(blocks, contents)
        self.nan_slots -= self._slots_of(blocks)

    def launch(self, plan: Plan, after: FakeDraws | None = None) -> FakeLaunch:
        assert self._unfinished == ([] if after is None else [after])
        fails_to = self._fails_to.get(self.num_steps, "")
        if fails_to == "launch":
            self.num_steps += 1
            raise self.error
        self._write(plan, {} if after is None else after.on_device)
        planted = {c.request_id for c in plan.chunks if c.is_last and self._is_broken()}
        return FakeLaunch(plan, planted, self._break(plan, planted), fails_to)

    def draw(self, launched: FakeLaunch, *, is_wanted: Callable[[int], bool]) -> FakeDraws:
        plan, planted, broken, fails_to = launched
        assert not self._unfinished
        self.planted |= planted
        if fails_to == "draw":
            raise self.error
        self.num_unwanted += sum(not is_wanted(chunk.request_id) for chunk in plan.chunks)
        known = self._read(plan, is_wanted)
        sampled = [chunk for chunk in plan.chunks if chunk.is_last]
        ids = [chunk.request_id for chunk in sampled]
        late = {i for i in ids if is_wanted(i) and i not in broken and self._is_late()}
        pairs = list(zip(ids, known.tokens, strict=True))
        on_device = {i: (t + 1) % VOCAB if i in late else t for i, t in pairs}
        tokens = settled(sampled, [INVALID_TOKEN if i in broken else t for i, t in pairs])
        output = replace(known, tokens=tokens, late=frozenset(late))
        self.num_late += len(late)
        for chunk, token in zip(sampled, tokens, strict=True):
            if token == REJECTED_TOKEN:
                self.nan_slots -= self._written(chunk)
        self._unfinished.append(FakeDraws(plan, on_device, output, fails_to == "finish"))
        return self._unfinished[-1]

    def finish(self, drawn: FakeDraws) -> StepOutput:
        assert self._unfinished.pop(0) is drawn
        if drawn.fails:
            raise self.error
        return drawn.output

    def _slots_of(self, blocks: Sequence[int]) -> set[int]:
        size = self.info.block_size
        return {block * size + i for block in blocks for i in range(size)}

    def _written(self, chunk: Chunk) -> set[int]:
        size, table = self.info.block_size, chunk.block_table
        positions = range(chunk.start, chunk.start + len(chunk.tokens))
        return {table[p // size] * size + p % size for p in positions}

    def _break(self, plan: Plan, planted: set[int]) -> set[int]:
        """Ids of the requests of the plan whose logits are not finite."""
        size, broken = self.info.block_size, set()
        for chunk in plan.chunks:
            written = self._written(chunk)
            self.nan_slots -= written
            end = chunk.start + len(chunk.tokens)
            blocks = chunk.block_table[: (end - 1) // size + 1]
            reads_nan = any(b * size + i in self.nan_slots for b in blocks for i in range(size))
            # The stretches after the first read what the chunk itself has written.
            reads_nan |= any(move.source in self.nan_states for move in chunk.states[:1])
            targets = {move.target for move in chunk.states}
            self.nan_states -= targets
            if reads_nan or chunk.request_id in planted:
                broken.add(chunk.request_id)
                self.nan_slots |= written
                self.nan_states |= targets
        return broken
