"""int8 linear layers on the CPU: torchao's weights, laid out once for the fastest product."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from millstream.model.cpu.kernels import Kernels
from millstream.model.cpu.linears import NativeInt8Linear
from millstream.model.cpu.packing import is_plain
from millstream.model.tolerance import INT8_LINEAR

log = logging.getLogger(__name__)

_CHANNELS_AT_ONCE = 4096
_SHIFT = 128  # from signed to unsigned bytes


class Int8Linear(nn.Module):
    """torchao's int8 linear with the weight laid out once for oneDNN, and steadier rounding."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.bias = linear.bias
        weight: Any = linear.weight
        # Not buffers: a packed tensor can be neither moved, converted nor saved.
        self._packed = torch.ops.onednn.qlinear_prepack(weight.qdata, None)
        self._scales = weight.scale.flatten().float()
        self._zero_points = torch.zeros(self.out_features, dtype=torch.int64)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., in_features] -> [..., out_features]."""
        values = hidden.float()
        # Intentional: torchao divides by 127.5, so a row's largest value always sits where rounding
        # goes either way, and noise in its last bit becomes a whole step.
        scale = values.abs().amax(-1, keepdim=True).mul_(1 / 127).clamp_min_(1e-7)
        rounded = (values / scale).round_().to(torch.int8)
        # oneDNN's fast product takes unsigned activations; flipping the top bit adds 128.
        shifted = rounded.view(torch.uint8).bitwise_xor_(_SHIFT)
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            shifted,
            1.0,
            _SHIFT,
            self._packed,
            self._scales,
            self._zero_points,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        out = out.mul_(scale)
        if self.bias is not None:
            out += self.bias
        return out.to(hidden.dtype)


def pack_int8(model: nn.Module, kernels: Kernels | None = None) -> int:
    """Replaces linears that torchao made int8, on the CPU and in place; returns how many.

    By the compiled kernel where it is the fastest; else by the operators that torch's compiler
    uses. These are not public: where one is missing or wrong, the model is left as it is, and
    computes the same more slowly.
    """
    make: Callable[[nn.Linear], nn.Module] = Int8Linear
    if kernels is not None and kernels.fast_products()[1]:
        make = partial(_native, kernels=kernels)
    # Names only: each weight must be free before the next one is copied.
    found = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and _is_dynamic_int8(child.weight)
    ]
    if not found or not _is_right(getattr(*found[0]), make):
        return 0
    for parent, name in found:
        linear = getattr(parent, name)
        setattr(parent, name, make(linear))
        linear.weight = None  # torchao ties the module to itself, so it outlives its last use
    return len(found)


@torch.inference_mode()
def quantize_output(model: PreTrainedModel, kernels: Kernels) -> bool:
    """Makes the output layer int8 where the kernels are fast at that; says whether it did."""
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not (kernels.fast_products()[1] and isinstance(head, nn.Module) and is_plain(head)):
        return False
    quantized = torch.empty(head.weight.shape, dtype=torch.int8)
    scales = torch.empty(len(quantized))
    # Some channels at a time: in float, a large vocabulary takes gigabytes.
    for start in range(0, len(quantized), _CHANNELS_AT_ONCE):
        part = slice(start, start + _CHANNELS_AT_ONCE)
        weight = head.weight[part].float()
        scale = weight.abs().amax(1).div_(127).clamp_min_(1e-12)
        scales[part] = scale
        quantized[part] = (weight / scale.unsqueeze(1)).round_().to(torch.int8)
    packed = NativeInt8Linear(quantized, scales, head.bias, kernels, for_words=True)
    model.set_output_embeddings(packed)  # type: ignore[no-untyped-call]
    return True


def _native(linear: nn.Linear, *, kernels: Kernels) -> nn.Module:
    weight: Any = linear.weight
    return NativeInt8Linear(weight.qdata, weight.scale, linear.bias, kernels)


def _is_dynamic_int8(weight: Any) -> bool:
    """torchao's tensor with a scale per output channel and rounded activations, nothing more."""
    return (
        type(weight).__name__ == "Int8Tensor"
        and weight.device.type == "cpu"
        and weight.act_quant_kwargs is not None
        and type(weight.act_quant_kwargs.granularity).__name__ == "PerRow"
        and weight.act_quant_kwargs.mapping_type.name == "SYMMETRIC"
        and weight.act_quant_scale is None
        and weight.act_pre_scale is None
        and not weight.reduce_range
        and list(weight.block_size) == [1, weight.shape[-1]]
    )


@torch.inference_mode()
def _is_right(linear: nn.Linear, make: Callable[[nn.Linear], nn.Module]) -> bool:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, linear.in_features, generator=generator).to(linear.weight.dtype)
    expected = linear(hidden).float()
    try:
        actual = make(linear)(hidden).float()
    except (AttributeError, RuntimeError) as error:
        log.info("int8 layers are not packed: %s", error)
        return False
    return bool((actual - expected).norm() <= INT8_LINEAR * expected.norm())
