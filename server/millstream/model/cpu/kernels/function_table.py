"""The kernels as one object of functions: compiled (see `loader`), or in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from millstream.model import grouped, recurrent_reference, reference

DTYPES = (torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class Kernels:
    """Functions of `reference`, `recurrent_reference` and `grouped`; their meaning is there.

    The compiled ones take tensors on the CPU, all of a call's in the same one of DTYPES (sinks may
    differ); caches, weights, cos and sin are contiguous, and the last dimension of everything else
    is. Anything else is a RuntimeError. A row's result depends on that row only, bit for bit.
    """

    paged_attention_decode: Callable[..., Tensor]
    paged_attention_prefill: Callable[..., Tensor]
    fast_products: Callable[[], tuple[bool, bool, bool, bool]]
    use_threads: Callable[[int], None]
    pack_weight: Callable[..., Tensor]
    packed_linear: Callable[..., Tensor]
    int8_linear: Callable[..., Tensor]
    grouped_linear: Callable[..., Tensor]
    rms_norm: Callable[..., Tensor]
    add_rms_norm: Callable[..., tuple[Tensor, Tensor]]
    best_tokens: Callable[[Tensor], Tensor]
    silu_mul: Callable[..., Tensor]
    gelu_tanh_mul: Callable[..., Tensor]
    rotary_to_cache: Callable[..., tuple[Tensor, Tensor]]
    short_convolution: Callable[..., Tensor]
    gated_delta_rule: Callable[..., Tensor]
    classes: Any = field(default=None, repr=False)  # the repr of torch's classes fails
    """Where they are compiled: the classes of `decoder.h`, Norm, Linear and Decoder."""

    @classmethod
    def of(cls, namespace: Any, *, classes: Any = None) -> Kernels:
        """The functions of a namespace that has them by name, such as `torch.ops.millstream`."""
        names = [part.name for part in fields(cls) if part.name != "classes"]
        members = {name: getattr(namespace, name) for name in names}
        # The overload itself: going through an operator's packet costs a microsecond a call.
        functions = {name: getattr(members[name], "default", members[name]) for name in names}
        return cls(**functions, classes=classes)


def plain() -> Kernels:
    """The functions in plain torch, for any device."""
    parts = (vars(grouped), vars(recurrent_reference), vars(reference))
    return Kernels.of(SimpleNamespace(**{name: part[name] for part in parts for name in part}))
