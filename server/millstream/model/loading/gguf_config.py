"""A model's configuration from the metadata of a GGUF file, which has no config.json.

Rules: an architecture that is not known is refused by its name, and so is a key of a known one that
says something which would be left out. What follows from the tensors (biases, tied embeddings, the
vocabulary) is read off them.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig

from millstream.errors import StartupError
from millstream.model.stored.gguf_file import GgufFile

# llama.cpp's architectures and those of transformers, which have the same names here.
ARCHITECTURES = ("llama", "qwen2", "qwen3")

_READ = frozenset(
    {
        *("context_length", "embedding_length", "block_count", "feed_forward_length"),
        *("attention.head_count", "attention.head_count_kv", "attention.key_length"),
        *("attention.value_length", "attention.layer_norm_rms_epsilon", "vocab_size"),
        *("rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor"),
        "rope.scaling.original_context_length",
    }
)
_OF_NO_MEANING = frozenset({"rope.scaling.finetuned"})
_SCALINGS = ("none", "linear", "yarn")
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")


def gguf_config(file: GgufFile) -> PretrainedConfig:
    """The configuration of the model in a GGUF file. Raises StartupError for an unknown one."""
    name, path = file.architecture, file.path
    if name not in ARCHITECTURES:
        raise StartupError(
            f"{path.name}: the GGUF architecture {name!r} is not known here; known are "
            f"{', '.join(ARCHITECTURES)}"
        )
    if file.metadata.get("split.count", 1) > 1:
        raise StartupError(
            f"{path.name} is one of {file.metadata['split.count']} files of a model; merge them "
            "with llama.cpp's llama-gguf-split --merge"
        )
    own = _own_metadata(file)
    try:
        return AutoConfig.for_model(name, **_fields(file, own))
    except KeyError as error:
        raise StartupError(f"{path.name} lacks the key {name}.{error.args[0]}") from error


def _own_metadata(file: GgufFile) -> dict[str, Any]:
    """What the file says of its architecture, without the architecture's name before each key."""
    prefix = f"{file.architecture}."
    own = {
        key.removeprefix(prefix): value
        for key, value in file.metadata.items()
        if key.startswith(prefix)
    }
    for key, value in own.items():
        if key not in _READ | _OF_NO_MEANING and value:
            raise StartupError(f"{file.path.name}: {prefix}{key} = {value!r} is not known here")
    return own


def _fields(file: GgufFile, own: dict[str, Any]) -> dict[str, Any]:
    """The fields of a configuration. Raises KeyError, with the key, if one is missing."""
    heads, tensors = own["attention.head_count"], file.tensors
    ids = {key: file.metadata.get(f"tokenizer.ggml.{key}") for key in (*_ENDS, "bos_token_id")}
    ends = [ids[key] for key in _ENDS if ids[key] is not None]
    floats = {about.kind.name for about in tensors.values()} == {"F32"}
    return {
        "hidden_size": own["embedding_length"],
        "intermediate_size": own["feed_forward_length"],
        "num_hidden_layers": own["block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": own.get("attention.head_count_kv", heads),
        "head_dim": _head_dim(file, own),
        "rms_norm_eps": own["attention.layer_norm_rms_epsilon"],
        "max_position_embeddings": own["context_length"],
        "rope_parameters": _rope(file, own),
        "vocab_size": _shape(file, "token_embd.weight")[0],
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_output.bias" in tensors,
        "mlp_bias": "blk.0.ffn_down.bias" in tensors,
        "use_sliding_window": False,
        "dtype": "float32" if floats else "bfloat16",
        "bos_token_id": ids["bos_token_id"],
        "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
        "pad_token_id": file.metadata.get("tokenizer.ggml.padding_token_id"),
    }


def _shape(file: GgufFile, name: str) -> tuple[int, ...]:
    if name not in file.tensors:
        raise StartupError(f"{file.path.name} lacks the tensor {name}")
    return file.tensors[name].shape


def _head_dim(file: GgufFile, own: dict[str, Any]) -> int:
    default = own["embedding_length"] // own["attention.head_count"]
    dim: int = own.get("attention.key_length", own.get("rope.dimension_count", default))
    for key in ("attention.value_length", "rope.dimension_count"):
        if own.get(key, dim) != dim:
            raise StartupError(
                f"{file.path.name}: {file.architecture}.{key} is {own[key]}, and keys are {dim} "
                "wide; that is not known here"
            )
    return dim


def _rope(file: GgufFile, own: dict[str, Any]) -> dict[str, Any]:
    """How positions are encoded, as transformers says it."""
    found: dict[str, Any] = {"rope_theta": own.get("rope.freq_base", 10000.0)}
    kind = own.get("rope.scaling.type", "none")
    if kind not in _SCALINGS:
        raise StartupError(
            f"{file.path.name}: positions scaled by {kind!r} (rope.scaling.type) are not known here"
        )
    if kind == "none":
        return found | {"rope_type": "default"}
    found |= {"rope_type": kind, "factor": own["rope.scaling.factor"]}
    original = own.get("rope.scaling.original_context_length")
    return found if original is None else found | {"original_max_position_embeddings": original}
