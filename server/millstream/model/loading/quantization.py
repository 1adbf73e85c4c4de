"""Fewer bits per weight: `--quantize`, done while transformers loads the model.

int8 is torchao's: eight bits per weight with a scale per output channel. int4 is ours: four bits
per weight in groups of 32 (see int4.py). Both round activations to eight bits with a scale per row.

Rules:
1. Nothing depends on other rows of the batch: activation scales are per row, never per tensor.
2. Linear layers only, and those that are called. Embeddings and what the format cannot hold keep
   the model's dtype; the start log says how many layers those are. So does the output layer, unless
   compiled kernels multiply the others; then it is int8, and its activations have twelve bits: its
   rows are many, and its errors nobody evens out (see `quantize_output`).
3. What cannot be quantised is refused before the weights are read.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, TorchAoConfig
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING
from transformers.utils.quantization_config import QuantizationConfigMixin

from millstream.errors import StartupError
from millstream.model import int4
from millstream.model.loading.int4_quantizer import Int4Config
from millstream.model.weight_reads import children_read

Scheme = Literal["int8", "int4"]

_BITS: dict[Scheme, float] = {"int8": 8, "int4": int4.BITS}


@dataclass(frozen=True, slots=True)
class QuantizationPlan:
    """Which linear layers get fewer bits, by name, and which keep the model's dtype."""

    scheme: Scheme
    quantized: tuple[str, ...]
    kept: tuple[str, ...]

    def config(self) -> QuantizationConfigMixin:
        """The plan as transformers takes it. Raises StartupError if torchao is missing for int8."""
        if self.scheme == "int4":
            return Int4Config(self.quantized)
        # torch's compiler is not used, so its settings are left alone.
        made = _torchao().Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
        return TorchAoConfig(made, modules_to_not_convert=[*self.kept])

    def outcome(self) -> str:
        """What has been done, for the log."""
        done, kept = len(self.quantized), len(self.kept)
        return f"{self.scheme}: {done} linear layers quantised, {kept} kept as they are"


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
    if scheme == "int8":
        _torchao()  # is it there?
    head: Any = skeleton.get_output_embeddings()  # type: ignore[no-untyped-call]
    quantized: list[str] = []
    kept: list[str] = []
    for name, module in skeleton.named_modules():
        if isinstance(module, nn.Linear):
            parent, _, child = name.rpartition(".")
            is_read = child in children_read(type(skeleton.get_submodule(parent)))
            is_plain = type(module) is nn.Linear and module is not head and not is_read
            (quantized if is_plain else kept).append(name)
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
    bits = _BITS[plan.scheme]
    for name in plan.quantized:
        weight = skeleton.get_parameter(f"{name}.weight")
        total -= weight.nbytes - int(weight.numel() * bits / 8)
    return total


def _torchao() -> ModuleType:
    """torchao's quantisation. Raises StartupError if it is not installed.

    Intentional: imported when asked for. It is an extra, slow to import, and prints warnings.
    """
    try:
        return importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise StartupError(
            "--quantize int8 needs torchao: pip install 'millstream[quantize]'; int4 does without"
        ) from error
