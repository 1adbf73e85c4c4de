"""Every kernel that a step can ask for is compiled before the engine is ready.

Triton compiles a kernel anew for arguments of another kind. Nothing here is of another kind from
step to step but the number of parts that the keys of a decode row are cut into, which depends on
how many rows there are. So one step for each such number meets all kernels. The steps are real
ones, run eagerly by the model itself, because only it knows what its layers ask for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch

from millstream.model.cuda.backends import TritonBackend
from millstream.model.cuda.capture import CapturedExecution, capture_decodes
from millstream.model.cuda.device_memory import DeviceMemory
from millstream.model.cuda.graph_sizes import GraphSizes
from millstream.model.cuda.prompt_timing import leave_out_slower
from millstream.model.cuda.staging import Staging
from millstream.model.cuda.trial_steps import largest_step, rows_with_prompt, run_ahead
from millstream.model.execution import EagerExecution, Execution
from millstream.model.paging.backend import AttentionBackend
from millstream.model.paging.kv_cache import KVCache
from millstream.model.states.state_cache import StateCache

log = logging.getLogger(__name__)

_PROMPT = 2  # tokens, since a chunk of one is a decode row


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPreparation:
    """How a device is made ready for steps over a cache.

    sizes: of the graphs to capture. staging: what packers send by. backends: of attention, best
    first. max_rows, max_tokens: of a step. max_context: tokens of the longest sequence. stream: the
    one to capture on; a new one where it is left out.
    """

    sizes: GraphSizes
    staging: Staging
    backends: list[AttentionBackend]
    max_rows: int
    max_tokens: int
    max_context: int
    device: torch.device
    stream: torch.cuda.Stream | None = None

    def prepare(
        self,
        eager: EagerExecution,
        cache: KVCache,
        states: StateCache | None,
        memory: DeviceMemory | None = None,
    ) -> Execution:
        """An execution that need not compile anything, and has taken the memory that its steps
        need. Uses the first blocks of a cache that holds nothing yet.

        states: of a model whose layers keep some. memory: notes what graphs and steps take.
        """
        execution = self.capture(eager, cache, states)
        if memory is not None:
            memory.note("graphs")
        kv_heads = {layer.shape[2] for layer in cache.keys.values()}
        kind_of = kinds_of_rows(self.backends, kv_heads)
        most = {"max_rows": self.max_rows, "max_tokens": self.max_tokens}
        warm_up(eager, kind_of, **most, block_size=cache.block_size, states=states)
        if isinstance(execution, CapturedExecution) and execution.prompts is not None:
            leave_out_slower(
                execution.prompts,
                eager,
                self.backends[0],
                cache=cache,
                max_context=self.max_context,
            )
        try:
            self.run_largest_step(eager, cache, states)
        except torch.OutOfMemoryError as error:
            reason = " ".join(str(error).split())[:200]
            log.warning(
                "the largest step does not fit beside the KV cache, it will fail if it is asked "
                "for; give --kv-cache-memory less, or --max-batch-prefill-tokens: %s",
                reason,
            )
        if memory is not None:
            memory.note("steps")
        return execution

    def capture(
        self, eager: EagerExecution, cache: KVCache, states: StateCache | None
    ) -> Execution:
        """An execution with graphs, or `eager` itself where none are wanted or none can be
        captured."""
        if not self.sizes.decodes:
            return eager
        return capture_decodes(
            eager,
            cache=cache,
            staging=self.staging,
            backends=self.backends,
            sizes=self.sizes,
            max_rows=self.max_rows,
            max_blocks=-(-self.max_context // cache.block_size),
            device=self.device,
            states=states,
            stream=self.stream,
        )

    def run_largest_step(
        self, eager: EagerExecution, cache: KVCache, states: StateCache | None
    ) -> None:
        """Runs the step that needs the most memory as the engine does. Raises what torch raises."""
        plan = largest_step(
            max_rows=self.max_rows,
            max_tokens=self.max_tokens,
            max_context=self.max_context,
            block_size=cache.block_size,
            states=states,
        )
        run_ahead(eager, plan)


def warm_up(
    eager: EagerExecution,
    kind_of: Callable[[int], Hashable],
    *,
    max_rows: int,
    max_tokens: int,
    block_size: int,
    states: StateCache | None,
) -> None:
    """Runs a step of each kind. Uses the first block of a cache that holds nothing yet.

    kind_of: a number of rows; max_rows, max_tokens: of a step; block_size: of the cache; states: of
    a model that keeps some. Raises what torch raises.
    """
    started = time.monotonic()
    counts = row_counts(min(max_rows, max_tokens), kind_of)
    for rows in counts:
        prompt = _PROMPT if rows + _PROMPT <= max_tokens else 0
        eager.logits(rows_with_prompt(rows, prompt, block_size=block_size, states=states))
    numbers = ", ".join(map(str, counts))
    log.info("ran steps of %s rows in %.1f s", numbers, time.monotonic() - started)


def row_counts(most: int, kind_of: Callable[[int], Hashable]) -> list[int]:
    """The smallest number of rows of each kind among 1 to `most`, ascending."""
    first: dict[Hashable, int] = {}
    for rows in range(1, most + 1):
        first.setdefault(kind_of(rows), rows)
    return list(first.values())


def kinds_of_rows(
    backends: Sequence[AttentionBackend], kv_heads: Iterable[int]
) -> Callable[[int], Hashable]:
    """Steps of as many rows as this maps to the same value launch the same kernels for them."""
    pairs = [(b, n) for b in backends if isinstance(b, TritonBackend) for n in sorted(kv_heads)]
    return lambda rows: tuple(backend.num_splits(rows, heads) for backend, heads in pairs)
