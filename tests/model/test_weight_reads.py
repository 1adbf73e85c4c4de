"""Layers that are used by their weights, and not called, stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.models.jamba.modeling_jamba import JambaMambaMixer
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP

from millstream.model.weight_reads import children_read
from tests.model.architectures import make_model
from tests.model.test_architectures import make_runner


class Reader(nn.Module):
    """Calls one layer, reads the weight of another, and the bias of a third."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.read, self.biased = (nn.Linear(2, 2) for _ in range(3))
        self.scale = nn.Parameter()

    def forward(self, x: Tensor) -> Tensor:
        return self._inner(self.called(x)) * self.scale + self.biased.bias

    def _inner(self, x: Tensor) -> Tensor:
        return x @ self.read.weight.T


class Heir(Reader):
    """Reads what it inherits."""


def test_what_a_module_reads_is_found_in_its_code() -> None:
    assert children_read(Reader) == children_read(Heir) == {"read", "biased"}
    assert "dt_proj" in children_read(JambaMambaMixer)
    for kind in (LlamaAttention, LlamaMLP, LlamaForCausalLM):
        assert not children_read(kind)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bfloat16", "native_kernels": "on"},
        {"dtype": "bfloat16", "native_kernels": "on", "quantize": "int8"},
        {"dtype": "float32", "native_kernels": "off", "quantize": "int8"},
    ],
)
def test_a_model_that_reads_weights_is_served_in_fewer_bits(
    options: dict[str, str], tmp_path: Path
) -> None:
    make_model("mamba", tmp_path)
    assert make_runner(tmp_path, device="cpu", **options).info.num_states
