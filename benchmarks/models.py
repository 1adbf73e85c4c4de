"""Models with random weights, made on the spot: the shape of real ones, nothing to download.

Rules: the same name and seed give the same files; there is no EOS, so every answer runs to
`max_tokens`; a folder that is complete is left alone, and one that was cut off never looks so.
Matrices are drawn from a normal distribution (0.02, as is usual). Rows of the tied embedding whose
token is no whole word are a tenth as long, so greedy decoding does not choose them. Such a model
soon repeats a word, which costs the same time as any other answer.

A model that quotes says one word after the other in a fixed order that has each word once. A text
in that order, in its prompt, is what it repeats, with words that are out of order put right; of a
prompt without one it repeats nothing. All of its layers are computed as in other models. They just
count for little beside the last word's embedding, from which an output layer of its own tells the
next one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3_5TextConfig,
    Qwen3Config,
)

from benchmarks.tokenizer import build_tokenizer, silent_ids, word_order

_VERSION = 3
_MARKER = "benchmark.json"
_STD, _SILENT = 0.02, 0.1
_QUIET = 0.01  # what is left of the layers of a model that quotes


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What defines a model. Sizes in units (hidden, intermediate), heads and tokens. quotes: see
    the module."""

    family: Literal["llama", "qwen3", "qwen3_5"]
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int = 32_000
    context: int = 8192
    seed: int = 0
    quotes: bool = False


_SMALL = Shape(
    family="llama",
    hidden=576,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    intermediate=1536,
)
_LARGER = Shape(
    family="qwen3",
    hidden=1024,
    layers=28,
    heads=16,
    kv_heads=8,
    head_dim=128,
    intermediate=3072,
)
SHAPES: dict[str, Shape] = {
    "bench-135m": _SMALL,
    "bench-600m": _LARGER,
    "quotes-135m": replace(_SMALL, quotes=True),
    "quotes-600m": replace(_LARGER, quotes=True),
    # Qwen3.5 0.8B but for its vocabulary: of each four layers, three have a state.
    "bench-hybrid": Shape(
        family="qwen3_5",
        hidden=1024,
        layers=24,
        heads=8,
        kv_heads=2,
        head_dim=256,
        intermediate=3584,
    ),
    # As many weights, all layers with attention.
    "bench-500m": Shape(
        family="qwen3",
        hidden=1024,
        layers=24,
        heads=16,
        kv_heads=8,
        head_dim=128,
        intermediate=4672,
    ),
}


def cache_folder() -> Path:
    """Where models and the peers' environments are kept: $MILLSTREAM_BENCH_CACHE, or ~/.cache."""
    named = os.environ.get("MILLSTREAM_BENCH_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "millstream-bench"


def find_model(name: str, *, cache: Path | None = None) -> Path:
    """The folder of a benchmark model (made if need be) or of a model that lies in a folder.

    Raises ValueError if it is neither.
    """
    if name in SHAPES:
        return make_model(SHAPES[name], (cache or cache_folder()) / "models" / name)
    folder = Path(name)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{name} is neither a model folder nor one of {', '.join(SHAPES)}")
    return folder.resolve()


def make_model(shape: Shape, folder: Path) -> Path:
    """Write the model of `shape` into `folder`, unless it is there. Returns the folder."""
    identity = {"version": _VERSION, **asdict(shape)}
    if not shape.quotes:
        del identity["quotes"]  # so that models made before there were others are found
    marker = folder / _MARKER
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == identity:
        return folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(shape, partial)
        (partial / _MARKER).write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
        partial.chmod(0o755)
        if folder.exists():
            _remove_own(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder.resolve()


def _remove_own(folder: Path) -> None:
    """Raises ValueError rather than removing files that this module did not write."""
    if any(folder.iterdir()) and not (folder / _MARKER).is_file():
        raise ValueError(f"{folder} holds something else; name an empty or a new folder")
    shutil.rmtree(folder)


def _write(shape: Shape, folder: Path) -> None:
    tokenizer = build_tokenizer(shape.vocab, max_length=shape.context)
    model = random_model(shape, () if shape.quotes else tuple(silent_ids(tokenizer)))
    if shape.quotes:
        vocabulary = tokenizer.get_vocab()
        words = [vocabulary[word] for word in word_order(vocabulary)]
        make_quoting(model, [tokenizer.encode("\n")[-1], *words])
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)


def random_model(shape: Shape, silent: tuple[int, ...] = ()) -> PreTrainedModel:
    """The model of `shape` in bfloat16. silent: ids that greedy decoding shall not choose."""
    # transformers leaves some of its functions without types.
    automatic: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        model: Any = automatic.from_config(_config(shape))
    with torch.no_grad():
        embedding: torch.Tensor = model.get_input_embeddings().weight
        embedding[list(silent)] *= _SILENT
    model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    generation: Any = GenerationConfig
    model.generation_config = generation(do_sample=False, pad_token_id=0)
    ready: PreTrainedModel = model.eval()
    return ready


def make_quoting(model: Any, order: list[int]) -> None:
    """Lets the model say the ids of `order` one after the other. The first is the prompt's last."""
    embedding: torch.Tensor = model.get_input_embeddings().weight
    head: torch.Tensor = model.get_output_embeddings().weight
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= _QUIET
            layer.mlp.down_proj.weight *= _QUIET
        head.zero_()
        head[order[1:]] = embedding[order[:-1]]


def _config(shape: Shape) -> PretrainedConfig:
    kind: Any = {"llama": LlamaConfig, "qwen3": Qwen3Config, "qwen3_5": Qwen3_5TextConfig}[
        shape.family
    ]
    config: PretrainedConfig = kind(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocab,
        max_position_embeddings=shape.context,
        initializer_range=_STD,
        tie_word_embeddings=not shape.quotes,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        dtype="float32",
    )
    return config


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.models", description="Make models with random weights."
    )
    parser.add_argument("names", nargs="+", choices=sorted(SHAPES), metavar="NAME")
    parser.add_argument("--out", type=Path, help="parent folder (default: the cache folder)")
    arguments = parser.parse_args()
    parent = arguments.out or cache_folder() / "models"
    for name in arguments.names:
        print(make_model(SHAPES[name], parent / name))


if __name__ == "__main__":
    main()
