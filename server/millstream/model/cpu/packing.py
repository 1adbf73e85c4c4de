"""Laying out the linear layers of a loaded model anew, in place: bfloat16, torchao's int8, groups.

The operators of torch that are used here are those that its own compiler freezes linears to
(`torch._inductor`, mkldnn fusion). They are not public, so they are tried first, and a model is
left as it is, and computes the same more slowly, where one is missing or wrong. The compiled
kernels have layouts and products of their own, for processors where those are faster.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import nn
from transformers import PreTrainedModel

from millstream.model.cpu.kernels import Kernels
from millstream.model.cpu.linears import (
    Int8Linear,
    NativeGroupedLinear,
    NativeInt8Linear,
    NativeLinear,
    PackedLinear,
    is_plain,
)
from millstream.model.grouped import GroupedLinear
from millstream.model.tolerance import INT8_LINEAR, PACKED_LINEAR_ABSOLUTE, PACKED_LINEAR_RELATIVE
from millstream.model.weight_reads import children_read

log = logging.getLogger(__name__)

_PROBE_WIDTH = 32


def packing(kernels: Kernels | None = None) -> Callable[[nn.Linear], nn.Module]:
    """The function that packs a linear layer for this processor.

    It returns a NativeLinear or a PackedLinear for a bfloat16 layer on the CPU, and any other layer
    as it is; without a packed product that is right, every layer.
    """
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
    for parent, name in _positions(model, _is_packable):
        linear = getattr(parent, name)
        packed = pack(linear)
        num_packed += packed is not linear
        setattr(parent, name, packed)
        del linear
    return num_packed


def is_supported() -> bool:
    """Whether this torch on this processor has the packed product and it is right."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(_PROBE_WIDTH, _PROBE_WIDTH, bias=False, dtype=torch.bfloat16)
    with torch.no_grad():
        linear.weight.normal_(generator=generator)
        hidden = torch.randn(3, _PROBE_WIDTH, generator=generator).bfloat16()
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


def pack_int8(model: nn.Module, kernels: Kernels | None = None) -> int:
    """Replaces linears that torchao made int8, on the CPU and in place; returns how many.

    The compiled kernel multiplies where it is the fastest, and torch's operators elsewhere. Returns
    0, with the model left as it is, where the product is missing or wrong.
    """
    make: Callable[[nn.Linear], nn.Module] = Int8Linear
    if kernels is not None and kernels.fast_products()[1]:
        make = partial(_native, kernels=kernels)
    positions = _positions(model, _is_dynamic_int8)
    if not positions or not _is_right(getattr(*positions[0]), make):
        return 0
    for parent, name in positions:
        linear = getattr(parent, name)
        setattr(parent, name, make(linear))
        linear.weight = None  # torchao ties the module to itself, so it outlives its last use
    return len(positions)


def pack_grouped(model: nn.Module, kernels: Kernels | None, dtype: torch.dtype) -> tuple[int, bool]:
    """Replaces the GroupedLinears of a model in place; says how many there were, and if they are
    quantised still. Where kernels are missing, or not fast, they become plain layers of `dtype`.
    """
    positions, is_native = _positions(model, lambda one: isinstance(one, GroupedLinear)), False
    for parent, name in positions:
        linear: GroupedLinear = getattr(parent, name)
        product = 3 if linear.has_groups else 1
        is_native = kernels is not None and kernels.fast_products()[product]
        made: nn.Module
        if kernels is None or not is_native:
            made = linear.dequantized(dtype)
        elif linear.has_groups:
            made = NativeGroupedLinear(linear, kernels)
        else:
            made = NativeInt8Linear(linear.packed, linear.scales, linear.bias, kernels)
        setattr(parent, name, made)
        del linear
    return len(positions), is_native


@torch.inference_mode()
def quantize_output(
    model: PreTrainedModel, kernels: Kernels, *, channels_at_once: int = 4096
) -> bool:
    """Makes the output layer int8 where the kernels are fast at that; returns whether it did.

    Its rows are rounded to 12 bits: nothing after it evens out an error. channels_at_once: output
    channels that are in float32 at a time; a whole large vocabulary would take gigabytes.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    positions = _positions(model, lambda one: one is head and is_plain(one))
    if not (kernels.fast_products()[2] and positions):
        return False
    quantized = torch.empty(head.weight.shape, dtype=torch.int8)
    scales = torch.empty(len(quantized))
    for start in range(0, len(quantized), channels_at_once):
        channels = slice(start, start + channels_at_once)
        weight = head.weight[channels].float()
        scale = weight.abs().amax(1).div_(127).clamp_min_(1e-12)
        scales[channels] = scale
        quantized[channels] = (weight / scale.unsqueeze(1)).round_().to(torch.int8)
    packed = NativeInt8Linear(quantized, scales, head.bias, kernels, activation_bits=12)
    for parent, name in positions:
        setattr(parent, name, packed)
    return True


def _native(linear: nn.Linear, *, kernels: Kernels) -> nn.Module:
    weight: Any = linear.weight
    return NativeInt8Linear(weight.qdata, weight.scale, linear.bias, kernels)


def _positions(
    model: nn.Module, is_wanted: Callable[[nn.Module], bool]
) -> list[tuple[nn.Module, str]]:
    """The modules that are wanted, each by its parent and its name there, but for those whose
    weights the parent reads itself.

    Names only: each weight must be free before the next one is copied.
    """
    return [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if is_wanted(child) and name not in children_read(type(parent))
    ]


def _is_dynamic_int8(module: nn.Module) -> bool:
    """Whether it is a linear layer with torchao's tensor for a weight, which has a scale per output
    channel and rounded activations, and nothing more."""
    weight: Any = getattr(module, "weight", None)
    return (
        type(module) is nn.Linear
        and type(weight).__name__ == "Int8Tensor"
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
    """Whether what `make` makes of a layer computes what the layer does, on random rows."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, linear.in_features, generator=generator).to(linear.weight.dtype)
    expected = linear(hidden).float()
    try:
        actual = make(linear)(hidden).float()
    except (AttributeError, RuntimeError) as error:
        log.info("int8 layers are not packed: %s", error)
        return False
    return bool((actual - expected).norm() <= INT8_LINEAR * expected.norm())
