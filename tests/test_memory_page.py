"""Tables of memory and speed are computed: they follow from the sizes of the models they name."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "memory.md"

BYTES_PER_SECOND = 40e9
GIB = 2**30
INT4_GROUP = 32  # inputs, which share a multiplier of one byte


class Model(NamedTuple):
    """Numbers of a published model, from its config.json: parameters in all and used for one token,
    those of its vocabulary (of each matrix, and how many there are), layers, heads that keep keys
    and values, and their size."""

    name: str
    parameters: float
    active: float
    vocabulary: float
    num_vocabulary: int
    layers: int
    kv_heads: int
    head_dim: int

    @property
    def linear(self) -> float:
        """Parameters of linear layers, which --quantize makes smaller."""
        return self.parameters - self.num_vocabulary * self.vocabulary

    def weights(self, bytes_each: float) -> float:
        """Bytes of all weights where linear layers take so many for each parameter."""
        return self.linear * bytes_each + 2 * self.num_vocabulary * self.vocabulary

    def read(self, bytes_each: float) -> float:
        """Bytes that one token reads: active layers, and the output layer."""
        unused = self.parameters - self.active
        return (self.linear - unused) * bytes_each + 2 * self.vocabulary

    @property
    def cache(self) -> float:
        """Bytes of keys and values of 1,000 tokens, in two bytes each."""
        return 1000 * 2 * 2 * self.layers * self.kv_heads * self.head_dim


MODELS = (
    Model("Qwen/Qwen3-0.6B", 0.596e9, 0.596e9, 151_936 * 1024, 1, 28, 8, 128),
    Model("google/gemma-3-1b-it", 1.000e9, 1.000e9, 262_144 * 1152, 1, 26, 1, 256),
    Model("Qwen/Qwen3-4B", 4.022e9, 4.022e9, 151_936 * 2560, 1, 36, 8, 128),
    Model("meta-llama/Llama-3.1-8B-Instruct", 8.030e9, 8.030e9, 128_256 * 4096, 2, 32, 8, 128),
    Model("Qwen/Qwen3-30B-A3B", 30.53e9, 3.35e9, 151_936 * 2048, 2, 48, 4, 128),
)


def row(model: Model) -> str:
    # The experts of mixtures are no linear layers in transformers, so they keep two bytes.
    sizes = (2, 1, 0.5 + 1 / INT4_GROUP) if model.active == model.parameters else (2,)
    memory = " | ".join([*(f"{model.weights(s) / GIB:.1f}" for s in sizes), "", ""][:3])
    speed = " | ".join([*(f"{BYTES_PER_SECOND / model.read(s):.0f}" for s in sizes), "", ""][:3])
    return f"| `{model.name}` | {memory} | {model.cache / GIB:.2f} | {speed} |"


def test_the_table_is_computed() -> None:
    wanted = [row(model) for model in MODELS]
    found = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "/" in line[:14]]
    assert [line for line in found if line.startswith("| `")] == wanted, "\n".join(wanted)


def test_the_table_of_the_readme_is_part_of_it() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    usual = ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-4B", "meta-llama/Llama-3.1-8B-Instruct")
    wanted = [row(model) for model in MODELS if model.name in usual]
    starts = tuple(f"| `{name}` |" for name in usual)
    assert [line for line in lines if line.startswith(starts)] == wanted
