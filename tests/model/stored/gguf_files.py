"""GGUF files of tiny random models, written by the package gguf as llama.cpp's converter does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor
from transformers import PreTrainedModel

from tests.model.architectures import random_model

SIZES = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "head_dim": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
}
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
# What llama.cpp's Q4_K_M has: more bits where errors cost most.
Q4_K_M = {"token_embd": "Q6_K", "output": "Q6_K", "attn_v": "Q6_K", "ffn_down": "Q6_K", "": "Q4_K"}


def make_gguf(
    file: Path,
    kinds: dict[str, str],
    *,
    model_type: str = "llama",
    more: dict[str, Any] | None = None,
    **sizes: Any,
) -> PreTrainedModel:
    """Writes a random model; see `write_gguf()`."""
    return write_gguf(file, random_model(model_type, **{**SIZES, **sizes}), kinds, more=more)


def write_gguf(
    file: Path,
    model: PreTrainedModel,
    kinds: dict[str, str],
    *,
    more: dict[str, Any] | None = None,
) -> PreTrainedModel:
    """Writes a model, and makes it the one that the file's weights mean.

    kinds: the type of the matrices of a name, or of others (""). more: further metadata, of numbers
    and strings.
    """
    config = model.config
    architecture = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[architecture])
    add_shape(writer, model)
    for key, value in (more or {}).items():
        {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)](
            key, value
        )
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config))
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None
        if parameter.dim() == 1:
            in_file = in_pairs(name, parameter.detach(), model)
            writer.add_tensor(found, in_file.numpy().astype(np.float32))
            continue
        stem = found.removesuffix(".weight").rpartition(".")[2]
        kind = Kind[kinds.get(stem, kinds[""])]
        data = stored(parameter.detach(), kind)
        means = torch.from_numpy(gguf.dequantize(data, kind).copy())
        parameter.data = means.view(parameter.shape).float()
        bytes_in_file = in_pairs(name, torch.from_numpy(data.copy()), model).numpy()
        writer.add_tensor(found, np.ascontiguousarray(bytes_in_file), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def add_shape(writer: gguf.GGUFWriter, model: PreTrainedModel) -> None:
    """What the converter says of a model's shape."""
    config = model.config
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def llama3_factors(config: Any) -> Any:
    """What frequencies are divided by, computed as the converter does."""
    rope = config.rope_parameters
    dim, original = config.head_dim, rope["original_max_position_embeddings"]
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, dim, 2) / dim)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    factors = []
    for wavelength in 2 * np.pi / frequencies:
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(rope["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def stored(weight: Tensor, kind: Kind) -> Any:
    """A weight in the type `kind`: by the package where it can, else blocks of random numbers."""
    try:
        return gguf.quantize(weight.numpy(), kind)
    except NotImplementedError:
        return random_blocks(weight, kind)


def random_blocks(weight: Tensor, kind: Kind) -> Any:
    """Blocks of a K type, whose steps make numbers as large as those of the weight."""
    numbers, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    source = np.random.default_rng(weight.numel() + kind.value)
    shape = (len(weight), weight.shape[1] // numbers)
    data = source.integers(0, 256, (*shape, num_bytes), dtype=np.uint8)
    size = float(weight.std())
    places = {Kind.Q6_K: {208: size / 1300}, Kind.Q4_K: {0: size / 150, 2: size / 20}}[kind]
    for place, step in places.items():
        steps = (source.uniform(0.8, 1.2, (*shape, 1)) * step).astype(np.float16)
        data[..., place : place + 2] = steps.view(np.uint8)
    return data.reshape(len(weight), -1)


def in_pairs(name: str, rows: Tensor, model: PreTrainedModel) -> Tensor:
    """Rows of llama's queries and keys with rotary pairs side by side, as converted."""
    heads = {
        "q_proj": model.config.num_attention_heads,
        "k_proj": model.config.num_key_value_heads,
    }.get(name.split(".")[-2])
    if heads is None or model.config.model_type != "llama":
        return rows
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)
