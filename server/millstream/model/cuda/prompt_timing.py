"""Which steps with prompts are faster as they are than from graphs.

A graph attends to prompts by our kernels. Outside of graphs another backend may be faster at long
prompts, and costs launches from Python. Which of the two is worth more depends on model and device,
so both are timed, when everything is compiled and captured.

Rule: whatever goes wrong costs one line in the log, never the server.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace

from millstream.core.plan import Chunk, Plan
from millstream.core.request import Request, SamplingParams
from millstream.model.cuda.dense_prompts import DensePromptBackend, PromptLimits
from millstream.model.cuda.dense_trial import Seconds, best_seconds
from millstream.model.cuda.prompt_graphs import PromptGraphs
from millstream.model.execution import EagerExecution
from millstream.model.paging.backend import AttentionBackend
from millstream.model.paging.kv_cache import KVCache

log = logging.getLogger(__name__)

_PREFIX = 2048


def leave_out_slower(
    graphs: PromptGraphs,
    eager: EagerExecution,
    backend: AttentionBackend,
    *,
    cache: KVCache,
    max_context: int,
    seconds_of: Seconds = best_seconds,
) -> None:
    """Has the graphs leave to `eager` what it is faster at.

    backend: what `eager` attends to prompts by; cache: holds nothing yet, its first blocks are
    written to; max_context: tokens that a sequence may have at least; seconds_of: times a call.
    """
    limits = _steps_of_another_kind(backend)
    if limits is None:
        return
    room = min(max_context, cache.num_blocks * cache.block_size, limits.most_keys)
    timing = _Timing(graphs, eager, cache.block_size, room, seconds_of)
    try:
        limits = replace(
            limits,
            fresh=timing.fewest(limits.fresh, prefix=0),
            continued=timing.fewest(limits.continued, prefix=_PREFIX),
        )
    except Exception as error:  # last resort: drivers raise what they like
        log.warning("which prompts are slower from graphs is not known: %s", error)
    log.info(
        "steps of %s prompt tokens and more, %s after a prefix, do not come from graphs",
        limits.fresh,
        limits.continued,
    )
    graphs.leave_out(limits)


def _steps_of_another_kind(backend: AttentionBackend) -> PromptLimits | None:
    """Those whose prompts a backend attends to in another way than graphs do; None: it never
    does."""
    if isinstance(backend, DensePromptBackend):
        return backend.limits
    if backend.is_capturable:
        return None
    return PromptLimits(fresh=1, continued=1, most_keys=sys.maxsize)


class _Timing:
    """Steps of one prompt, from a graph and as they are."""

    def __init__(
        self,
        graphs: PromptGraphs,
        eager: EagerExecution,
        block_size: int,
        room: int,
        seconds_of: Seconds,
    ) -> None:
        """room: tokens of the longest step that can be tried, its prefix included."""
        self._graphs, self._eager, self._seconds_of = graphs, eager, seconds_of
        self._block_size, self._room = block_size, room

    def fewest(self, first: int | None, *, prefix: int) -> int | None:
        """The prompt tokens from which on graphs are slower; None if they never are.

        first: from how many on they compute in another way; None: never.
        """
        found = None
        for tokens in sorted({size.tokens for size in self._graphs.sizes}, reverse=True):
            if first is None or tokens < first:
                break
            if prefix + tokens > self._room:
                continue
            if not self._is_slower(tokens, prefix):
                break
            found = tokens
        return found

    def _is_slower(self, tokens: int, prefix: int) -> bool:
        """Whether a step of so many tokens takes longer from a graph."""
        plan = self._plan(tokens, prefix)

        def replay() -> None:
            assert self._graphs.compute(plan), "there is a graph of just this size"

        return self._seconds_of(lambda: self._eager.compute(plan)) < self._seconds_of(replay)

    def _plan(self, tokens: int, prefix: int) -> Plan:
        """A chunk of the first prompt that the cache holds, which ends there."""
        prompt = (1,) * (prefix + tokens)
        request = Request(id=1, prompt=prompt, sampling=SamplingParams(), max_tokens=1)
        table = list(range(-(-len(prompt) // self._block_size)))
        return Plan((Chunk(request, prompt[prefix:], prefix, table, [*prompt], is_last=True),))
