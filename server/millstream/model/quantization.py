"""Fewer bits per weight: `--quantize`, done by torchao while transformers loads the model.

int8 is eight bits per weight with a scale per output channel, and activations rounded to eight
bits with a scale per row; int4 is four bits per weight in groups of 32, activations as they are.

Rules:
1. Nothing depends on other rows of the batch: activation scales are per row, never per tensor.
2. Linear layers only. Embeddings and what the format cannot hold keep the model's dtype; the start
   log says how many layers those are. So does the output layer, but for int8 with compiled kernels,
   which round its activations to twelve bits: its rows are many, and its errors nobody evens out.
3. What cannot be quantised is refused before the weights are read.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, TorchAoConfig
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from millstream.errors import StartupError
from millstream.model.native import Kernels
from millstream.model.native_linear import NativeInt8Linear
from millstream.model.packing import is_plain

log = logging.getLogger(__name__)

Scheme = Literal["int8", "int4"]

_INT4_GROUP = 32
_INT4_OUTPUTS = 16  # torch's int4 product computes this many output channels at a time
_CHANNELS_AT_ONCE = 4096
_SHIFT = 128  # from signed to unsigned bytes


@dataclass(frozen=True, slots=True)
class QuantizationPlan:
    """Which linear layers get fewer bits, by name, and which keep the model's dtype."""

    scheme: Scheme
    quantized: tuple[str, ...]
    kept: tuple[str, ...]

    def config(self) -> TorchAoConfig:
        """What transformers wants to know."""
        return TorchAoConfig(_torchao_config(self.scheme), modules_to_not_convert=[*self.kept])


def stored_method(config: PretrainedConfig) -> str | None:
    """How the checkpoint itself is quantised (gptq, awq, fp8, torchao, ...), if it is.

    Raises StartupError for a method that transformers would ignore.
    """
    stored: Any = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    method = stored.get("quant_method") if isinstance(stored, dict) else stored.quant_method
    name = str(getattr(method, "value", method))
    if name not in AUTO_QUANTIZATION_CONFIG_MAPPING and name != "bitsandbytes":
        # transformers would warn, and load the tensors as if they were plain weights.
        raise StartupError(
            f"the checkpoint is quantised by a method that transformers does not know ({name}), so "
            "it cannot be served. Choose another checkpoint."
        )
    return name


def plan(
    scheme: Scheme, skeleton: PreTrainedModel, config: PretrainedConfig, device: torch.device
) -> QuantizationPlan:
    """Decides per layer. skeleton: the model without weights. Raises StartupError if it can't."""
    if method := stored_method(config):
        raise StartupError(
            f"--quantize: the checkpoint is quantised already ({method}); leave --quantize out"
        )
    if device.type != "cpu":
        raise StartupError(
            f"--quantize: {scheme} is implemented for the CPU only; on {device.type} leave it out "
            "or choose a checkpoint that is quantised already"
        )
    _torchao_config(scheme)  # is the library there?
    head: Any = skeleton.get_output_embeddings()  # type: ignore[no-untyped-call]
    quantized: list[str] = []
    kept: list[str] = []
    for name, module in skeleton.named_modules():
        if isinstance(module, nn.Linear):
            fits = type(module) is nn.Linear and module is not head and _fits(scheme, module)
            (quantized if fits else kept).append(name)
    if not quantized:
        raise StartupError(
            f"--quantize: {type(skeleton).__name__} has no linear layer that {scheme} can hold; "
            "leave --quantize out"
        )
    return QuantizationPlan(scheme, tuple(quantized), tuple(kept))


def weight_bytes(skeleton: PreTrainedModel, plan: QuantizationPlan | None) -> int:
    """Memory of the weights once loaded, shared ones counted once; scales are left out."""
    total = sum(parameter.nbytes for parameter in skeleton.parameters())
    if plan is None:
        return total
    bits = 8 if plan.scheme == "int8" else 4
    for name in plan.quantized:
        weight = skeleton.get_parameter(f"{name}.weight")
        total -= weight.nbytes - weight.numel() * bits // 8
    return total


def _fits(scheme: Scheme, linear: nn.Linear) -> bool:
    if scheme == "int8":
        return True
    return linear.in_features % _INT4_GROUP == 0 and linear.out_features % _INT4_OUTPUTS == 0


def _torchao_config(scheme: Scheme) -> Any:
    # torch's compiler is not used, so its settings are left alone.
    if scheme == "int8":
        module = _torchao("torchao.quantization")
        return module.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    module = _torchao("torchao.prototype.quantization.int4")
    return module.PrototypeInt4WeightOnlyConfig(group_size=_INT4_GROUP, set_inductor_config=False)


def _torchao(name: str) -> ModuleType:
    """Intentional: imported when asked for. It is an extra, slow to import, and talks."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise StartupError(
            "--quantize needs torchao: pip install 'millstream[quantize]'"
        ) from error


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
    for_words = NativeInt8Linear(quantized, scales, head.bias, kernels, for_words=True)
    model.set_output_embeddings(for_words)  # type: ignore[no-untyped-call]
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
    return bool((actual - expected).norm() <= 0.02 * expected.norm())
