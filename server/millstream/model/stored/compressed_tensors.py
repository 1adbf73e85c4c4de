"""compressed-tensors, as LLM Compressor writes it: whole numbers of four or eight bits.

`pack-quantized`:

    weight_packed      int32 [outputs, inputs / n]   n = 32 / bits inputs of a channel in a word,
                                                     each plus half of what the bits can hold
    weight_scale       float [outputs, groups]
    weight_zero_point  int32 [outputs / n, groups]   packed alike; only of asymmetric weights
    weight_shape       int64 [2]
    weight_g_idx       int32 [inputs]                the group of each input, where not in order

`int-quantized` and `naive-quantized`:

    weight             int8 [outputs, inputs]
    weight_scale       float [outputs, groups], [outputs, 1] or one for all
    weight_zero_point  int8, shaped like the scales; only of asymmetric weights

The weight is scale * (number - zero). Where the format asks for activations of eight bits with a
scale per token, that is what the products round them to anyway.
Source: `compressors/pack_quantized` and `compressors/naive_quantized` of compressed-tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from millstream.errors import StartupError
from millstream.model.stored.formats import (
    LayerSize,
    UnknownLayoutError,
    groups_of,
    require_shape,
)
from millstream.model.stored.weight import StoredWeight, signed, unpacked

LAYOUTS = frozenset({"pack-quantized", "int-quantized", "naive-quantized"})
_STRATEGIES = ("group", "channel", "tensor")


class CompressedTensors:
    """Whole numbers in any of the LAYOUTS."""

    name = "compressed-tensors"
    parts = frozenset(
        {
            *("weight_packed", "weight", "weight_scale", "weight_zero_point"),
            *("weight_shape", "weight_g_idx"),
        }
    )

    def __init__(self, config: Mapping[str, Any]) -> None:
        """config: the checkpoint's quantization_config. Raises StartupError, which names what is
        not known."""
        for name in ("kv_cache_scheme", "transform_config", "moe_sparsity_config"):
            if config.get(name):
                raise StartupError(f"compressed-tensors with a {name} is not known here")
        sparsity = (config.get("sparsity_config") or {}).get("format", "dense")
        if sparsity != "dense":
            raise StartupError(f"compressed-tensors with {sparsity} sparsity is not known here")
        for group in (config.get("config_groups") or {}).values():
            _check_group(group, config)

    def is_stored(self, names: frozenset[str]) -> bool:
        """Whether a layer has scales beside its numbers."""
        return "weight_scale" in names

    def decode(self, parts: Mapping[str, Tensor], size: LayerSize) -> StoredWeight:
        """The weight of a layer; act-order is kept in `group_of`. Raises UnknownLayoutError."""
        outputs, inputs = size
        numbers, bits = _numbers(parts, size)
        scale = parts["weight_scale"].float()
        scale = scale.view(1, 1) if scale.numel() == 1 else scale.view(len(scale), -1)
        groups = groups_of("weight_scale", scale.shape[1], inputs)
        steps = scale.expand(outputs, groups).contiguous()
        zeros = parts.get("weight_zero_point")
        offsets = None
        if zeros is not None:
            if zeros.dtype == torch.int32:
                zeros = signed(unpacked(zeros.t(), bits).t()[:outputs], bits)
            zeros = zeros.reshape(1, 1) if zeros.numel() == 1 else zeros.view(len(zeros), -1)
            offsets = -steps * zeros.float().expand(outputs, groups)
            offsets = offsets if bool(zeros.any()) else None
        g_idx = parts.get("weight_g_idx")
        if g_idx is not None:
            require_shape("weight_g_idx", g_idx, inputs)
            g_idx = None if bool((g_idx < 0).all()) else g_idx.long()
        return StoredWeight(numbers, steps, offsets, 4 if bits == 4 else 8, g_idx)


def layouts_of(config: Mapping[str, Any]) -> set[str]:
    """The layouts that a quantization_config names, for all layers or for groups of them."""
    groups = (config.get("config_groups") or {}).values()
    own = {group["format"] for group in groups if isinstance(group, dict) and group.get("format")}
    return own or {str(config.get("format"))}


def _check_group(group: Any, config: Mapping[str, Any]) -> None:
    """Raises StartupError if a scheme says something that is not known here."""
    if not isinstance(group, dict) or not isinstance(group.get("weights"), dict):
        raise StartupError("compressed-tensors with a scheme that has no weights is not known here")
    weights: dict[str, Any] = group["weights"]
    if weights.get("type", "int") != "int" or weights.get("num_bits") not in (4, 8):
        kind = f"{weights.get('type')} weights of {weights.get('num_bits')} bits"
        raise StartupError(f"compressed-tensors with {kind} is not known here; int of 4 and 8 are")
    if (strategy := weights.get("strategy") or "group") not in _STRATEGIES:
        raise StartupError(f"compressed-tensors with the strategy {strategy!r} is not known here")
    if group.get("output_activations"):
        raise StartupError("compressed-tensors with output_activations is not known here")
    inputs = group.get("input_activations")
    if inputs and not (
        inputs.get("dynamic") is True and inputs.get("type") == "int" and inputs["num_bits"] == 8
    ):
        raise StartupError(
            "compressed-tensors with input_activations other than dynamic int of 8 bits is not "
            "known here"
        )


def _numbers(parts: Mapping[str, Tensor], size: LayerSize) -> tuple[Tensor, int]:
    """Numbers [outputs, inputs] around 0 (int8), and of how many bits they are."""
    outputs, inputs = size
    weight, packed = parts.get("weight"), parts.get("weight_packed")
    if packed is None:
        if weight is None or weight.dtype != torch.int8:
            raise UnknownLayoutError("its weight is not int8")
        numbers: Tensor = weight
        require_shape("weight", numbers, *size)
        return numbers, 8
    for bits in (4, 8):
        if packed.shape == (outputs, -(-inputs * bits // 32)):
            return signed(unpacked(packed, bits)[:, :inputs], bits), bits
    raise UnknownLayoutError(
        f"its weight_packed is {[*packed.shape]}, which is neither 4 nor 8 bits of {[*size]}"
    )
