"""The comparison at start: a model whose own logits are of no use is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from millstream.errors import StartupError
from tests.model.architectures import make_model
from tests.model.test_architectures import make_runner

NORM = "model.norm.weight"
QUERIES = "model.layers.1.self_attn.q_proj.weight"
UP = "model.layers.0.mlp.up_proj.weight"

Change = Callable[[dict[str, torch.Tensor]], object]


def refusal(folder: Path, change: Change, **options: Any) -> str:
    """The sentence with which a small model is refused once its weights are changed."""
    make_model("llama", folder, num_hidden_layers=2)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StartupError) as caught:
        make_runner(folder, **options)
    return caught.value.message


def spoil(value: float) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[QUERIES][0, 0] = value
        tensors[UP][1] = value

    return change


def enlarge(factor: float) -> Change:
    return lambda tensors: tensors[NORM].mul_(factor)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    message = refusal(tmp_path, spoil(value))
    assert message.startswith("2 tensors of the weights are not finite in float32: ")
    assert QUERIES in message
    assert UP in message


def test_weights_that_the_dtype_cannot_hold_are_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, spoil(1e6), dtype="float16")
    assert message.startswith("2 tensors of the weights are not finite in float16: ")
    assert "--dtype" in message


@pytest.mark.parametrize(
    ("options", "factor", "wider"),
    [({"dtype": "float16"}, 6e4, "bfloat16 or float32"), ({"dtype": "bfloat16"}, 3e38, "float32")],
)
def test_logits_that_overflow_are_told(
    options: dict[str, Any], factor: float, wider: str, tmp_path: Path
) -> None:
    message = refusal(tmp_path, enlarge(factor), **options)
    assert "values overflow, though its weights are finite" in message
    assert message.endswith(f"Try --dtype {wider}.")


def test_quantised_weights_are_blamed_too(tmp_path: Path) -> None:
    message = refusal(tmp_path, spoil(float("nan")), quantize="int8")
    assert "not finite before they became int8" in message
