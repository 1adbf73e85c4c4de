"""Tiny checkpoints of random models, stored in few bits as the tools that people use store them.

The packing follows each tool's own loops, number by number. Beside the folder comes the model that
the stored weights mean, dequantised in float32.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from tests.model.architectures import random_model

Tensors = dict[str, Tensor]
Store = Callable[[Tensor], tuple[Tensors, Tensor]]
"""A weight [outputs, inputs] -> the tensors of a checkpoint, and the weight that they mean."""

SIZES = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "head_dim": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
}


def make_stored(
    folder: Path, store: Store, config: dict[str, Any], *, model_type: str = "llama", **sizes: Any
) -> PreTrainedModel:
    """Saves a model with all linear layers but the last one stored. config: quantization_config."""
    model = random_model(model_type, **{**SIZES, **sizes})
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if type(module) is nn.Linear and name != "lm_head":
            parts, meant = store(tensors.pop(f"{name}.weight"))
            tensors |= {f"{name}.{part}": tensor.contiguous() for part, tensor in parts.items()}
            module.weight.data = meant.float()
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight")
    save_config(folder, model, config)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return model


def save_config(folder: Path, model: PreTrainedModel, stored: dict[str, Any]) -> None:
    """config.json with a quantization_config."""
    folder.mkdir(exist_ok=True)
    content = model.config.to_dict() | {"quantization_config": stored, "dtype": "float16"}
    content["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")


def packed(numbers: Tensor, bits: int) -> Tensor:
    """Whole numbers [n, m] from 0 on, each word of several that are below each other: int32."""
    count = 32 // bits
    words = torch.zeros(len(numbers) // count, numbers.shape[1], dtype=torch.int64)
    for row in range(len(words)):
        for place in range(count):
            words[row] |= numbers[row * count + place].long() << (bits * place)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def rounded(
    weight: Tensor, group: int, *, bits: int, symmetric: bool, group_of: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A weight [outputs, inputs] as numbers [inputs, outputs] from 0 on, scales and zeros
    [groups, outputs], and what they mean [outputs, inputs]."""
    most = 2**bits - 1
    inputs = weight.shape[1]
    group_of = torch.arange(inputs) // group if group_of is None else group_of
    scales, zeros = [], []
    for index in range(inputs // group):
        part = weight[:, group_of == index]
        high, low = part.amax(1).clamp_min(0), part.amin(1).clamp_max(0)
        if symmetric:
            high = torch.maximum(high, -low)
            low = -high
        scale = ((high - low) / most).half().float()
        zero = torch.full_like(scale, (most + 1) // 2) if symmetric else (-low / scale).round()
        scales.append(scale)
        zeros.append(zero.clamp(1, most))  # GPTQ's first version cannot say 0
    scale, zero = torch.stack(scales), torch.stack(zeros)
    numbers = (weight.t() / scale[group_of] + zero[group_of]).round().clamp(0, most)
    meant = ((numbers - zero[group_of]) * scale[group_of]).t().contiguous()
    return numbers, scale, zero, meant


def gptq(
    group: int = 32, *, bits: int = 4, symmetric: bool = True, version: int = 1, order: bool = False
) -> Store:
    """Layers as GPTQModel packs them. group: -1 for all inputs; order: act-order."""

    def store(weight: Tensor) -> tuple[Tensors, Tensor]:
        inputs = weight.shape[1]
        size = inputs if group == -1 else group
        group_of = torch.arange(inputs) // size
        if order:
            group_of = group_of[torch.randperm(inputs, generator=torch.Generator().manual_seed(1))]
        numbers, scale, zero, meant = rounded(
            weight, size, bits=bits, symmetric=symmetric, group_of=group_of
        )
        parts = {
            "qweight": packed(numbers, bits),
            "qzeros": packed((zero - int(version == 1)).t(), bits).t(),
            "scales": scale.half(),
            "g_idx": group_of.to(torch.int32),
        }
        return parts, meant

    return store


def gptq_config(**changes: Any) -> dict[str, Any]:
    """The quantization_config that GPTQModel writes."""
    return {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 32,
        "desc_act": False,
        "sym": True,
        "lm_head": False,
        "checkpoint_format": "gptq",
        "pack_dtype": "int32",
        "meta": {"quantizer": ["gptqmodel:5.0.0"], "damp_percent": 0.01},
    } | changes


def awq(group: int = 32) -> Store:
    """Layers as AutoAWQ's WQLinear_GEMM packs them."""

    def store(weight: Tensor) -> tuple[Tensors, Tensor]:
        numbers, scale, zero, meant = rounded(weight, group, bits=4, symmetric=False)
        order = [0, 2, 4, 6, 1, 3, 5, 7]

        def words(codes: Tensor) -> Tensor:
            shuffled = codes.view(len(codes), -1, 8)[..., order].flatten(1)
            return packed(shuffled.t(), 4).t()

        return {"qweight": words(numbers), "qzeros": words(zero), "scales": scale.half()}, meant

    return store


def awq_config(**changes: Any) -> dict[str, Any]:
    """The quantization_config that AutoAWQ writes."""
    return {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "version": "gemm",
        "zero_point": True,
        "modules_to_not_convert": None,
    } | changes


def compressed(config: dict[str, Any]) -> Store:
    """Layers as the library compressed-tensors stores them, by its own compressor."""
    content = config["config_groups"]["group_0"]
    scheme = QuantizationScheme(**content)
    weights = content["weights"]
    compressor: Any = BaseCompressor.get_value_from_registry(config["format"])

    def store(weight: Tensor) -> tuple[Tensors, Tensor]:
        group = weights["group_size"] or weight.shape[1]
        bits, symmetric = weights["num_bits"], weights["symmetric"]
        _, scale, zero, _ = rounded(weight, group, bits=bits, symmetric=symmetric)
        given = {"weight": weight, "weight_scale": scale.t().contiguous()}
        if not symmetric:
            half = 2 ** (bits - 1)
            given["weight_zero_point"] = (zero.t() - half).to(torch.int8).contiguous()
        parts: Tensors = compressor.compress(given, scheme)
        meant: Tensor = compressor.decompress(parts, scheme)["weight"]
        return parts, meant

    return store


def compressed_config(
    layout: str, *, bits: int, group: int | None, symmetric: bool = True, inputs: bool = False
) -> dict[str, Any]:
    """The quantization_config that LLM Compressor writes. inputs: activations of eight bits too."""
    activations = {
        "num_bits": 8,
        "type": "int",
        "symmetric": True,
        "strategy": "token",
        "dynamic": True,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {
                    "num_bits": bits,
                    "type": "int",
                    "symmetric": symmetric,
                    "strategy": "group" if group else "channel",
                    "group_size": group,
                    "dynamic": False,
                },
                "input_activations": activations if inputs else None,
                "output_activations": None,
            }
        },
    }
