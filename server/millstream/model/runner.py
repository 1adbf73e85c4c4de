"""The model side of the engine: a plan in, sampled tokens out.

Rules: one forward call per step; logits only for rows that are sampled; a runner changes nothing of
what it is given. `build.py` says how its parts are made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from millstream.core.archive import BlockArchive
from millstream.core.plan import INVALID_TOKEN, REJECTED_TOKEN, Chunk, Plan, StepOutput
from millstream.core.request import Request
from millstream.core.settling import settled
from millstream.core.status import EngineInfo
from millstream.model.execution import Computed, Execution
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.layout import StepBefore
from millstream.model.sampling.logprobs import prompt_logprobs, sampled_logprobs
from millstream.model.sampling.sampler import Drawing, Sampler
from millstream.model.states.state_cache import StateCache

CountKernels = Callable[[], int | None]


def no_count() -> int | None:
    """For devices of which nobody knows how many kernels they compile."""
    return None


@dataclass(frozen=True, slots=True)
class LaunchedStep:
    """A step whose forward pass is under way. computed: what the execution gave for it."""

    plan: Plan
    computed: Computed

    @property
    def logits(self) -> Tensor:
        """Logits [s + c, vocab], as Computed describes them."""
        return self.computed.logits


@dataclass(frozen=True, slots=True)
class DrawnStep:
    """A step whose tokens are under way. chunks: the sampled ones; None where any token will do."""

    launched: LaunchedStep
    chunks: list[Chunk | None]
    drawing: Drawing

    @property
    def request_ids(self) -> list[int]:
        """The requests of all chunks that are sampled, in the order of the drawn tokens."""
        return [chunk.request_id for chunk in self.launched.plan.chunks if chunk.is_last]


class ModelRunner:
    """Implements the engine loop's Runner over one loaded model and its KV cache."""

    def __init__(
        self,
        *,
        execution: Execution,
        sampler: Sampler,
        cache: KVCache,
        info: EngineInfo,
        states: StateCache | None = None,
        archive: BlockArchive | None = None,
        count_late_kernels: CountKernels = no_count,
    ) -> None:
        """cache, states: those that the execution computes over. archive: of blocks of `cache`.
        count_late_kernels: says how many were compiled since the runner was made."""
        self.execution = execution
        self.cache, self.states = cache, states
        self.info, self.archive = info, archive
        self._sampler, self._count_late_kernels = sampler, count_late_kernels

    @property
    def plans_ahead(self) -> bool:
        """Whether a step may be launched when the one before is drawn, but not finished."""
        return self.execution.plans_ahead

    @property
    def num_late_kernels(self) -> int | None:
        """Kernels of the device that were compiled while steps ran; None if nobody knows."""
        return self._count_late_kernels()

    def is_compiled(self, request: Request) -> bool:
        """Whether the request's grammar, if it has one, is compiled."""
        return self._sampler.is_compiled(request)

    def compile(self, request: Request) -> None:
        """Compiles the request's grammar. In any thread."""
        self._sampler.compile(request)

    def launch(self, plan: Plan, after: DrawnStep | None = None) -> LaunchedStep:
        """Queues the forward pass: a CUDA device computes while the host does something else.

        after: the step that draws what the plan lacks. It need not be finished, all others must be.
        """
        before = None
        if after is not None:
            before = StepBefore(after.request_ids, after.drawing.tokens)
        return LaunchedStep(plan, self.execution.compute(plan, before))

    def draw(
        self, launched: LaunchedStep, *, is_wanted: Callable[[int], bool] = lambda _: True
    ) -> DrawnStep:
        """Queues the draws. The chunks' histories are whole by now; nothing else is done for those
        whose request ids are not wanted."""
        sampled = (chunk for chunk in launched.plan.chunks if chunk.is_last)
        chunks = [chunk if is_wanted(chunk.request_id) else None for chunk in sampled]
        logits = launched.logits[: len(chunks)]
        with self.execution.threads.for_small_operations(logits.numel()):
            drawing = self._sampler.launch(logits, chunks, launched.computed.ahead)
        return DrawnStep(launched, chunks, drawing)

    def finish(self, sampling: DrawnStep) -> StepOutput:
        """Waits for the tokens."""
        logits, plan, chunks = sampling.launched.logits, sampling.launched.plan, sampling.chunks
        drawn, late = self._sampler.finish(sampling.drawing)
        sampled = [chunk for chunk in plan.chunks if chunk.is_last]
        tokens = settled(sampled, drawn)
        if INVALID_TOKEN in drawn:
            self._clear_rejected(sampled, tokens)
        return StepOutput(
            tokens,
            sampled_logprobs(logits[: len(chunks)], chunks, tokens),
            prompt_logprobs(logits[len(chunks) :], plan.chunks),
            late=frozenset(sampling.request_ids[row] for row in late),
        )

    def scrub(self, blocks: Sequence[int]) -> None:
        """Clears cache blocks whose content cannot be trusted to be finite."""
        self.cache.scrub(blocks)

    def _clear_rejected(self, chunks: Sequence[Chunk], tokens: Sequence[int]) -> None:
        """Clears what guesses have left in the cache: it may be NaN, and their request goes on."""
        pairs = zip(chunks, tokens, strict=True)
        rejected = [chunk for chunk, token in pairs if token == REJECTED_TOKEN]
        size = self.cache.block_size
        slots = [c.block_table[c.start // size] * size + c.start % size for c in rejected]
        if slots:
            self.cache.clear(slots)

    def logits(self, plan: Plan) -> Tensor:
        """Logits [s + c, vocab] of a plan that lacks nothing, as Computed describes them."""
        return self.execution.compute(plan).logits
