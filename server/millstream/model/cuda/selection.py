"""Which attention backends work on this machine.

Rule: a backend is used only after it computed, on this device and with this model's shapes, what
plain torch does. Whatever goes wrong costs one line in the log, never the server.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from millstream.model.cuda.backend_trial import BackendTrial
from millstream.model.cuda.backends import TritonBackend, VarlenBackend
from millstream.model.cuda.dense_trial import with_dense_prompts
from millstream.model.paging.backend import AttentionBackend
from millstream.model.paging.kv_cache import LayerShape

log = logging.getLogger(__name__)

_KERNELS = "millstream.model.cuda.triton_attention"

Candidates = Mapping[str, Callable[[], AttentionBackend]]
"""How each backend is made, by name, best first."""


def find_backends(
    shapes: Sequence[LayerShape],
    *,
    num_heads: Callable[[LayerShape], int],
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
    most_dense_keys: int = 0,
    overlaps: bool = False,
    candidates: Candidates | None = None,
) -> list[AttentionBackend]:
    """The backends that work here with layers of these shapes, best first.

    num_heads: query heads of a layer. most_dense_keys: how many keys of prompts may be gathered at
    once, to attend to them densely; 0: none. overlaps: kernels may begin before the one before
    them ends. candidates: how each backend is made, best first; by default all that there are.
    """
    backends: list[AttentionBackend] = []
    trials = [
        BackendTrial(
            shape,
            num_heads=num_heads(shape),
            block_size=block_size,
            dtype=dtype,
            device=device,
        )
        for shape in sorted(set(shapes), key=repr)
    ]
    usual: Candidates = {"varlen": _varlen, "triton": partial(_triton, overlaps=overlaps)}
    for name, make in (candidates or usual).items():
        try:
            backend = make()
            for trial in trials:
                trial.require_right(backend)
        except Exception as error:  # last resort: compilers and drivers raise what they like
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            log.info("attention by %s is not used: %s", name, reason)
        else:
            backends.append(backend)
    if most_dense_keys and backends and isinstance(backends[0], TritonBackend):
        backends[0] = with_dense_prompts(backends[0], trials, most_keys=most_dense_keys)
    return backends


def _varlen() -> AttentionBackend:
    module = importlib.import_module("torch.nn.attention.varlen")
    parameters = inspect.signature(module.varlen_attn).parameters
    missing = {"block_table", "seqused_k", "window_size", "scale"} - set(parameters)
    if missing:
        raise NotImplementedError(f"this torch's varlen_attn has no {', '.join(sorted(missing))}")
    return VarlenBackend(module.varlen_attn)


def _triton(*, overlaps: bool) -> AttentionBackend:
    if importlib.util.find_spec("triton") is None:
        raise NotImplementedError("triton is not installed")
    # Imported here only: it takes a second, and machines without CUDA need not have it.
    return TritonBackend(importlib.import_module(_KERNELS), overlaps=overlaps)
