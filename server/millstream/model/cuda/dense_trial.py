"""From how many prompt tokens on torch's flash attention is faster than our kernels on this device.

Rule: it is used only after it computed, on this device and with this model's shapes, what plain
torch and our kernels do. Whatever goes wrong costs one line in the log, never the server.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from millstream.model.attention import LayerOptions
from millstream.model.cuda.backend_trial import BackendTrial
from millstream.model.cuda.backends import TritonBackend
from millstream.model.cuda.dense_prompts import DensePromptBackend, PromptLimits
from millstream.model.paging.backend import AttentionBackend
from millstream.model.paging.step import HostSpan, Span
from millstream.model.tolerance import ATTENTION_BACKENDS

log = logging.getLogger(__name__)

_TOKENS = (128, 256, 512, 1024, 2048)
_PREFIX = 2048
_GAIN = 1.1  # how many times as fast it has to be
_CALLS, _ROUNDS = 4, 3

Seconds = Callable[[Callable[[], object]], float]


def with_dense_prompts(
    backend: TritonBackend,
    trials: Sequence[BackendTrial],
    *,
    most_keys: int,
    find_varlen: Callable[[], Callable[..., Tensor]] | None = None,
    seconds_of: Seconds | None = None,
) -> TritonBackend:
    """The backend, or one that attends densely to the prompts for which that is faster.

    trials: for the shapes of all layers. most_keys: that there is memory for, at once. find_varlen:
    gives torch's function or raises; seconds_of: times a call. Both are for tests.
    """
    try:
        varlen_attn = (find_varlen or _varlen_attn)()
        always = PromptLimits(fresh=1, continued=1, most_keys=most_keys)
        dense = DensePromptBackend(
            backend.kernels, varlen_attn, limits=always, overlaps=backend.overlaps
        )
        for trial in trials:
            trial.require_right(dense)
        times = [_Timing(trial, most_keys, seconds_of or best_seconds) for trial in trials]
        fresh, continued = (
            _latest(timing.fewest(dense, backend, prefix) for timing in times)
            for prefix in (0, _PREFIX)
        )
    except Exception as error:  # last resort: compilers and drivers raise what they like
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        log.info("prompts are not attended densely: %s", reason)
        return backend
    if fresh is None and continued is None:
        log.info("prompts are not attended densely: our kernels are as fast")
        return backend
    log.info("prompts are attended densely from %s tokens on, %s after a prefix", fresh, continued)
    limits = replace(always, fresh=fresh, continued=continued)
    return DensePromptBackend(
        backend.kernels, varlen_attn, limits=limits, overlaps=backend.overlaps
    )


def _varlen_attn() -> Callable[..., Tensor]:
    module = importlib.import_module("torch.nn.attention.varlen")
    found: Callable[..., Tensor] = module.varlen_attn
    missing = {"window_size", "scale"} - set(inspect.signature(found).parameters)
    if missing:
        raise NotImplementedError(f"this torch's varlen_attn has no {', '.join(sorted(missing))}")
    # It says at every call which kernel it uses.
    logging.getLogger(module.__name__).setLevel(logging.WARNING)
    return found


def _latest(numbers: Iterable[int | None]) -> int | None:
    """The largest of them; None if any is."""
    largest = 0
    for number in numbers:
        if number is None:
            return None
        largest = max(largest, number)
    return largest or None


@dataclass(frozen=True, slots=True)
class _Timing:
    """Two ways to attend to prompts of one layer shape, compared and timed."""

    trial: BackendTrial
    most_keys: int
    seconds_of: Seconds

    def fewest(self, dense: AttentionBackend, ours: AttentionBackend, prefix: int) -> int | None:
        """The tokens from which on `dense` is faster behind a prefix; None if it is not."""
        found = None
        for tokens in sorted(_TOKENS, reverse=True):
            if prefix + tokens > self.most_keys:
                continue
            if not self._is_faster(dense, ours, tokens, prefix):
                break
            found = tokens
        return found

    def _is_faster(
        self, dense: AttentionBackend, ours: AttentionBackend, tokens: int, prefix: int
    ) -> bool:
        trial, options = self.trial, LayerOptions(self.trial.shape.key_dim**-0.5)
        query, keys, values, span = self._sample(tokens, prefix)

        def by(backend: AttentionBackend) -> Callable[[], Tensor]:
            return lambda: backend.prefill(query, keys, values, span, options)

        # Heads apart, as transformers' modules give them: not every kernel takes that.
        apart = query.transpose(0, 1).contiguous().transpose(0, 1)
        found = dense.prefill(apart, keys, values, span, options)
        error = (found.float() - by(ours)().float()).abs().max().item()
        if not error <= ATTENTION_BACKENDS[trial.dtype]:
            raise ArithmeticError(f"{tokens} tokens after {prefix} are wrong by {error:.1e}")
        return self.seconds_of(by(dense)) * _GAIN < self.seconds_of(by(ours))

    def _sample(self, tokens: int, prefix: int) -> tuple[Tensor, Tensor, Tensor, Span]:
        """Random query, keys and values, and the span of one prompt in blocks in random order."""
        trial, generator = self.trial, torch.Generator().manual_seed(0)
        count, shape = -(-(prefix + tokens) // trial.block_size), trial.shape
        sizes = (trial.block_size, shape.kv_heads)
        query = trial.random(generator, tokens, trial.num_heads, shape.key_dim)
        keys = trial.random(generator, count, *sizes, shape.key_dim)
        values = trial.random(generator, count, *sizes, shape.value_dim)
        table = torch.randperm(count, generator=generator).numpy().astype(np.int32)
        host = HostSpan.of_chunks(table[None], np.array([prefix]), np.array([tokens]))
        span = host.put(lambda array: torch.from_numpy(array).to(trial.device))
        return query, keys, values, span


def best_seconds(compute: Callable[[], object]) -> float:
    """Seconds of a few calls, the host's part included: the best of some rounds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(_CALLS):
            compute()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best
