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

import torch

from millstream.core.plan import Chunk, Plan, StateMove
from millstream.core.request import Request, SamplingParams
from millstream.model.cuda.backends import TritonBackend
from millstream.model.cuda.capture import CapturedExecution, capture_decodes
from millstream.model.cuda.prompt_timing import leave_out_slower
from millstream.model.cuda.staging import Staging
from millstream.model.execution import EagerExecution, Execution
from millstream.model.paging.backend import AttentionBackend
from millstream.model.paging.kv_cache import KVCache
from millstream.model.states.state_cache import StateCache

log = logging.getLogger(__name__)

_PROMPT = (1, 1)  # two tokens, since a chunk of one is a decode row


def prepare_steps(
    eager: EagerExecution,
    *,
    captures: bool,
    captures_draws: bool,
    captures_prompts: bool,
    cache: KVCache,
    staging: Staging,
    backends: list[AttentionBackend],
    max_rows: int,
    max_tokens: int,
    max_blocks: int,
    device: torch.device,
    states: StateCache | None = None,
) -> Execution:
    """An execution that need not compile anything, with graphs of decode steps if it `captures`,
    of their draws if it `captures_draws`, and of steps with prompts if it `captures_prompts`.

    max_rows, max_tokens: of a step; the others are as in `capture_decodes()` and `warm_up()`.
    """
    execution: Execution = eager
    if captures:
        execution = capture_decodes(
            eager,
            cache=cache,
            staging=staging,
            backends=backends,
            max_rows=max_rows,
            max_blocks=max_blocks,
            device=device,
            captures_draws=captures_draws,
            max_prompt_tokens=max_tokens if captures_prompts else 0,
            states=states,
        )
    kv_heads = {layer.shape[2] for layer in cache.keys.values()}
    kind_of = kinds_of_rows(backends, kv_heads)
    warm_up(eager, kind_of, max_rows=max_rows, max_tokens=max_tokens, states=states)
    if isinstance(execution, CapturedExecution) and execution.prompts is not None:
        leave_out_slower(
            execution.prompts,
            eager,
            backends[0],
            cache=cache,
            max_context=(max_blocks - 1) * cache.block_size,
        )
    return execution


def warm_up(
    eager: EagerExecution,
    kind_of: Callable[[int], Hashable],
    *,
    max_rows: int,
    max_tokens: int,
    states: StateCache | None,
) -> None:
    """Runs a step of each kind. Uses the first block of a cache that holds nothing yet.

    kind_of: a number of rows; max_rows, max_tokens: of a step; states: of a model that keeps some.
    Raises what torch raises.
    """
    started = time.monotonic()
    counts = row_counts(min(max_rows, max_tokens), kind_of)
    for rows in counts:
        eager.logits(_step(rows, states, has_prompt=rows + len(_PROMPT) <= max_tokens))
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


def _step(rows: int, states: StateCache | None, *, has_prompt: bool) -> Plan:
    """Sequences of one token, then a prompt, all in the first block and the spare slot."""
    request = Request(id=1, prompt=(1,), sampling=SamplingParams(), max_tokens=1)

    def chunk(tokens: tuple[int, ...], *, has_state: bool) -> Chunk:
        moves: tuple[StateMove, ...] = ()
        if states is not None:
            spare = states.spare_slot
            moves = (StateMove(len(tokens), spare if has_state else None, spare),)
        return Chunk(request, tokens, 0, [0], [*tokens], is_last=True, states=moves)

    decodes = [chunk((1,), has_state=True)] * rows
    prompts = [chunk(_PROMPT, has_state=False)] * has_prompt
    return Plan((*decodes, *prompts))
