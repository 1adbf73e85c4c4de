"""Linear layers whose weights are laid out once for the CPU's matrix instructions.

torch reorders a bfloat16 weight in every call of `F.linear`; oneDNN can do it once. The operators
are the ones that torch's own compiler freezes linears to (`torch._inductor`, mkldnn fusion); they
are not public, so they are tried first, and a model is left as it is where they are missing.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

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


def pack_linears(model: nn.Module) -> int:
    """Replaces the bfloat16 linears of a model on the CPU in place; returns how many."""
    if not is_supported():
        return 0
    # Names only: each weight must be free before the next one is copied.
    found = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
        # A quantised weight is a class of its own that only claims to be bfloat16.
        and type(child.weight) is nn.Parameter
        and child.weight.dtype == torch.bfloat16
    ]
    for parent, name in found:
        setattr(parent, name, PackedLinear(getattr(parent, name)))
    return len(found)


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
        return torch.allclose(packed.float(), linear(hidden).float(), rtol=0.02, atol=0.1)
