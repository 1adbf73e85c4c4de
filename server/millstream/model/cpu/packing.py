"""Linear layers whose weights are laid out once for the CPU's matrix instructions.

torch reorders a bfloat16 weight in every call of `F.linear`; oneDNN can do it once. The operators
are the ones that torch's own compiler freezes linears to (`torch._inductor`, mkldnn fusion); they
are not public, so they are tried first, and a model is left as it is where they are missing. The
compiled kernels have a layout and a product of their own, for processors where that is faster.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeGuard

import torch
from torch import Tensor, nn

from millstream.model.cpu.kernels import Kernels
from millstream.model.cpu.linears import NativeLinear, joined_biases
from millstream.model.tolerance import PACKED_LINEAR_ABSOLUTE, PACKED_LINEAR_RELATIVE

log = logging.getLogger(__name__)

_PROBE = 32


class PackedLinear(nn.Module):
    """Computes what the nn.Linear it replaces computes; holds the weight only in packed form."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.bias = linear.bias
        weight = linear.weight.detach()
        # Not a buffer: a packed tensor can be neither moved, converted nor saved.
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., in_features] -> [..., out_features]."""
        return self.multiply(hidden, self.packed, self.bias)

    @staticmethod
    def multiply(hidden: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
        """The same with another packed weight and bias."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(hidden, packed, bias, "none", [], "")
        return out


def is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether it is a linear layer and nothing more."""
    # A quantised weight is a class of its own that only claims to be bfloat16.
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter


@torch.no_grad()
def merge(linears: Sequence[nn.Linear]) -> nn.Linear:
    """One linear layer whose outputs are those of `linears` side by side; a copy."""
    weight = torch.cat([linear.weight for linear in linears])
    merged = nn.Linear(weight.shape[1], len(weight), bias=False, device="meta")
    merged.weight = nn.Parameter(weight, requires_grad=False)
    sizes = [linear.out_features for linear in linears]
    bias = joined_biases([linear.bias for linear in linears], sizes)
    if bias is not None:
        merged.bias = nn.Parameter(bias, requires_grad=False)
    return merged


def packing(kernels: Kernels | None = None) -> Callable[[nn.Linear], nn.Module]:
    """What packs a linear layer where that can be done, and else gives it back as it is."""
    make: Callable[[nn.Linear], nn.Module]
    if kernels is not None and kernels.fast_products()[0]:
        make = partial(NativeLinear, kernels=kernels)
    elif is_supported():
        make = PackedLinear
    else:
        return lambda linear: linear
    return lambda linear: make(linear) if _is_packable(linear) else linear


def _is_packable(module: nn.Module) -> TypeGuard[nn.Linear]:
    return (
        is_plain(module)
        and module.weight.dtype == torch.bfloat16
        and module.weight.device.type == "cpu"
    )


def pack_linears(model: nn.Module, kernels: Kernels | None = None) -> int:
    """Replaces the bfloat16 linears of a model on the CPU in place; returns how many."""
    pack, num_packed = packing(kernels), 0
    # Names only: each weight must be free before the next one is copied.
    found = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if _is_packable(child)
    ]
    for parent, name in found:
        linear = getattr(parent, name)
        packed = pack(linear)
        num_packed += packed is not linear
        setattr(parent, name, packed)
        del linear
    return num_packed


def is_supported() -> bool:
    """Whether this torch on this processor has the packed product and it is right."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(_PROBE, _PROBE, bias=False, dtype=torch.bfloat16)
    with torch.no_grad():
        linear.weight.normal_(generator=generator)
        hidden = torch.randn(3, _PROBE, generator=generator).bfloat16()
        try:
            packed = PackedLinear(linear)(hidden)
        except (AttributeError, RuntimeError) as error:
            log.info("linear layers are not packed: %s", error)
            return False
        return torch.allclose(
            packed.float(),
            linear(hidden).float(),
            rtol=PACKED_LINEAR_RELATIVE,
            atol=PACKED_LINEAR_ABSOLUTE,
        )
