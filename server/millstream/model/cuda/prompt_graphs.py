"""Steps with prompt chunks replayed from captured graphs, whether or not sequences generate beside.

Rules:
1. A graph is a step of some size over fixed memory: so many decode rows, prompt tokens and prompt
   chunks. A step takes the smallest one that holds it; `prompt_staging` says what the rest is.
2. Tokens that the step before draws are taken from static memory, as in `graphs`.
3. The sizes are few, since each is captured before anybody is served: see `prompt_sizes`.
4. Steps that no graph holds (longer prompts, more of them, many scored positions) run as they are;
   so do those that are faster so (`prompt_timing`), and all of models with states, whose layers
   get the rows of a step in parts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.core.plan import Chunk, Plan
from millstream.model.cuda.dense_prompts import PromptLimits
from millstream.model.cuda.prompt_sizes import StepSize, size_of
from millstream.model.cuda.prompt_staging import StagedStep, stage_step
from millstream.model.cuda.recording import Record, Recording
from millstream.model.cuda.staging import Staging
from millstream.model.execution import Computed, EagerExecution
from millstream.model.paging.backend import AttentionBackend, PagedAttention
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.layout import Layout, StepBefore
from millstream.model.paging.packer import Packer
from millstream.model.paging.step import PagedStep, Span

log = logging.getLogger(__name__)


class PromptGraphs:
    """The graphs of one model over one cache. Mutated by `capture()` and `leave_out()` only.

    sizes: of the graphs; num_replays: how many steps came from them.
    """

    def __init__(
        self,
        *,
        forward: Callable[..., Tensor],
        cache: KVCache,
        packer: Packer,
        staging: Staging,
        backend: AttentionBackend,
        sizes: list[StepSize],
        max_rows: int,
        max_blocks: int,
        device: torch.device,
    ) -> None:
        """staging: what the packer sends by; backend: one that can be captured; sizes: of
        `step_sizes()`; max_rows: of a step; max_blocks: of the longest sequence."""
        self._forward, self._cache, self._packer = forward, cache, packer
        self._staging, self._backend = staging, backend
        self.sizes = sizes

        def tables(rows: int) -> Tensor:
            size = (rows, max_blocks)
            return torch.full(size, cache.padding_block, dtype=torch.int32, device=device)

        self._decode_tables = tables(max(size.decodes for size in sizes))
        self._prompt_tables = tables(max(size.chunks for size in sizes) + 1)
        self._firsts = torch.arange(len(self._decode_tables) + 1, dtype=torch.int32, device=device)
        self._tokens_before = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self._logits: Tensor | None = None
        self._left_out: PromptLimits | None = None
        self._recordings: dict[StepSize, Recording] = {}
        self.num_replays = 0

    @property
    def graph_bytes(self) -> list[int]:
        """What each graph took of the device's memory, in the order of their capture."""
        return [recording.num_bytes for recording in self._recordings.values()]

    @torch.inference_mode()
    def capture(self, record: Record) -> None:
        """Captures the largest step first: the smaller ones find their memory in its pool."""
        for size in sorted(self.sizes, key=lambda size: -size.num_rows):
            staged = self._stage(None, size)
            self._recordings[size] = record(
                lambda size=size, staged=staged: self._compute(size, staged)  # type: ignore[misc]
            )

    def leave_out(self, limits: PromptLimits) -> None:
        """From now on leaves steps to others whose prompts are within the limits."""
        self._left_out = limits

    def find(self, plan: Plan) -> StepSize | None:
        """The size that the plan is replayed with; None if no graph holds it."""
        needed = size_of(plan)
        if not needed.tokens or self._is_left_out(plan.chunks[needed.decodes :]):
            return None
        num_wanted = sum((chunk.sampling is not None) + len(chunk.scored) for chunk in plan.chunks)
        return next(
            (
                size
                for size in self.sizes
                if all(has >= needs for has, needs in zip(size, needed, strict=True))
                and size.num_wanted >= num_wanted
            ),
            None,
        )

    @torch.inference_mode()
    def compute(self, plan: Plan, before: StepBefore | None = None) -> Computed | None:
        """Queues a step; None if no graph holds the plan. before: draws what it lacks."""
        size = self.find(plan)
        if size is None:
            return None
        sources = np.full(size_of(plan).decodes, -1)
        if before is not None:
            if len(before.request_ids) > len(self._tokens_before):
                return None
            unknown, rows = before.rows_of(plan)
            sources[unknown] = rows
            if unknown:
                self._tokens_before[: len(before.request_ids)].copy_(before.tokens())
        layout = self._packer.lay_out(plan)
        self._stage(layout, size, sources)
        recording = self._recordings[size]
        recording.replay()
        self.num_replays += 1
        # A copy: the next replay may be queued before everything that reads this one's is.
        return Computed(recording.output[: len(layout.wanted)].clone())

    def _is_left_out(self, prompts: Sequence[Chunk]) -> bool:
        return self._left_out is not None and self._left_out.allow(
            tokens=sum(len(chunk.tokens) for chunk in prompts),
            keys=sum(chunk.start + len(chunk.tokens) for chunk in prompts),
            has_prefix=any(chunk.start for chunk in prompts),
        )

    def _stage(
        self, layout: Layout | None, size: StepSize, sources: NDArray[np.int64] | None = None
    ) -> StagedStep:
        """Sends a step, and copies its block tables to where graphs read them."""
        staged = stage_step(layout, size, cache=self._cache, staging=self._staging, sources=sources)
        for tables, sent in (
            (self._decode_tables, staged.decode_tables),
            (self._prompt_tables, staged.prompt_tables),
        ):
            if len(sent):
                tables[: len(sent), : sent.shape[1]].copy_(sent)
        return staged

    def _compute(self, size: StepSize, staged: StagedStep) -> Tensor:
        """The step of a size, from where it is staged; this is what is captured."""
        most_keys = self._prompt_tables.shape[1] * self._cache.block_size
        decodes = Span(
            tables=self._decode_tables[: size.decodes],
            starts=staged.positions[: size.decodes],
            ends=staged.decode_ends,
            firsts=self._firsts[: size.decodes + 1],
            longest=1,
            longest_context=most_keys,
        )
        prompts = Span(
            tables=self._prompt_tables[: size.chunks + 1],
            starts=staged.starts,
            ends=staged.ends,
            firsts=staged.firsts,
            longest=size.tokens,
            longest_context=most_keys,
        )
        # Where there is no token, what is computed from token 0 is discarded.
        ids_before = self._tokens_before[staged.sources.clamp(min=0)].clamp_(min=0)
        known = staged.token_ids
        drawn = torch.where(staged.sources < 0, known[: size.decodes], ids_before)
        token_ids = torch.cat([drawn, known[size.decodes :]])
        step = PagedStep(staged.slots, decodes if size.decodes else None, prompts)
        logits = self._forward(
            token_ids.unsqueeze(0),
            staged.positions.unsqueeze(0),
            rows=staged.wanted,
            batch=PagedAttention(step, self._cache, [self._backend]),
        )
        # All graphs write their logits to one place, or each would keep as much memory for them.
        if self._logits is None:
            most = max(size.num_wanted for size in self.sizes)
            self._logits = logits.new_empty(most, logits.shape[1])
        return self._logits[: len(logits)].copy_(logits)


def capture_prompts(
    eager: EagerExecution,
    *,
    cache: KVCache,
    staging: Staging,
    backend: AttentionBackend,
    sizes: Sequence[StepSize],
    max_rows: int,
    max_blocks: int,
    device: torch.device,
    has_states: bool,
    record: Record,
) -> PromptGraphs | None:
    """Graphs of what `eager` computes for steps with prompts; None, with the reason in the log,
    where they cannot be captured.

    sizes: none if none are wanted; has_states: whether layers of the model keep some; the others
    are as in `PromptGraphs`.
    """
    if not sizes:
        return None
    if has_states:
        log.info("steps with prompts are not captured: the model keeps states")
        return None
    graphs = PromptGraphs(
        forward=eager.forward,
        cache=cache,
        packer=eager.packer,
        staging=staging,
        backend=backend,
        sizes=list(sizes),
        max_rows=max_rows,
        max_blocks=max_blocks,
        device=device,
    )
    started = time.monotonic()
    try:
        graphs.capture(record)
    except Exception as error:  # last resort: models do what they like inside
        reason = " ".join(str(error).split())[:200]
        log.warning("steps with prompts are not captured, they run as they are: %s", reason)
        return None
    tokens, decodes = ({size[i] for size in graphs.sizes} for i in (1, 0))
    log.info(
        "captured steps of %s prompt tokens beside %s rows in %.1f s",
        ", ".join(map(str, sorted(tokens))),
        ", ".join(map(str, sorted(decodes))),
        time.monotonic() - started,
    )
    return graphs
