"""Kernels that are launched while the one before them ends, and what they do before it has."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from millstream.model import acceleration
from millstream.model.build import runner_factory
from millstream.model.cuda.overlap_trial import can_overlap
from millstream.model.speedups import Speedups
from millstream.settings import Settings
from tests.model.architectures import make_model
from tests.model.cuda.test_fused_layers import as_on_a_device
from tests.model.cuda.triton_scripts import run_script

# What each kernel reads before it has waited, and that nothing is written before.
_COMPILATION = """
import re
from millstream.model.cuda import dependent_launch, triton_layer_kernels, triton_product_kernels
from tests.model.cuda.triton_scripts import compile_for_hopper

POINTERS = {"slots": "*i64", "sums": "*fp32"}
NUMBERS = {name: "fp32" for name in ("eps", "q_eps", "k_eps")} | {
    name: "i32" for name in
    ("rows", "outputs", "inputs", "parts", "x_stride", "merged_stride", "angle_stride")
}
ACCESS = re.compile("ld.global|st.global|cp.async.c|prefetch.global|griddepcontrol.wait")

def before_the_wait(kernel, divisible=(), **constants):
    text = compile_for_hopper(
        kernel, types=POINTERS | NUMBERS, divisible=divisible,
        options={"launch_pdl": True, "num_warps": 4}, OVERLAPS=True, **constants,
    )
    assert "griddepcontrol.launch_dependents" in text
    seen = ACCESS.findall(text)
    first = seen.index("griddepcontrol.wait")
    assert len(seen) > first + 1
    print(kernel.fn.__name__, ":", *sorted(set(seen[:first])))

before_the_wait(dependent_launch.add_one, TILE=1024)
before_the_wait(triton_layer_kernels.norm_row, SIZE=4096, PAD=4096, OFFSET=False, ADD=True)
before_the_wait(triton_layer_kernels.gate_tile, SIZE=14336, TILE=1024, GELU=False)
before_the_wait(triton_layer_kernels.place_head, HEADS=32, KV_HEADS=8, DIM=128, PAD=128,
                TURNING=128, Q_NORM=True, K_NORM=True, Q_OFFSET=False, K_OFFSET=False)
sizes = dict(CHANNELS=64, DEPTH=128, STAGES=3, HAS_BIAS=False)
aligned = ["x", "weight", "out", "outputs", "inputs"]
for pad in (1, 16):
    for is_even in (True, False):
        before_the_wait(triton_product_kernels.product_tile, divisible=aligned, ROWS_PAD=pad,
                        IS_EVEN=is_even, **sizes)
before_the_wait(triton_product_kernels.join_product, TILE=1024, HAS_BIAS=True)
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_nothing_that_others_write_is_read_before_they_have_ended() -> None:
    assert run_script(_COMPILATION, interpreted=False).splitlines() == [
        "add_one :",
        "norm_row : ld.global",  # its weight
        "gate_tile :",
        "place_head :",
        *["product_tile : prefetch.global"] * 4,
        "join_product :",
    ]


def test_a_device_that_can_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert can_overlap(torch.device("cuda"), require=lambda device: None)
    assert "kernels are launched while the one before them ends" in caplog.text


def test_a_device_that_cannot_launches_kernels_in_turn(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(device: torch.device) -> None:
        raise ArithmeticError("a kernel did not wait for the one before it")

    caplog.set_level("INFO")
    assert not can_overlap(torch.device("cuda"), require=refuse)
    assert "one after the other: ArithmeticError: a kernel did not wait" in caplog.text


def test_a_machine_without_a_device_launches_nothing_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    assert not can_overlap(torch.device("cuda"))


@pytest.mark.parametrize("is_wanted", [True, False])
@pytest.mark.parametrize("can", [True, False])
def test_layers_and_products_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_wanted: bool, can: bool
) -> None:
    told: dict[str, bool] = {}

    def find_products(device: torch.device, *, overlaps: bool) -> None:
        told["products"] = overlaps

    make_model("llama", tmp_path)
    settings = Settings(model_id=str(tmp_path), block_size=8, threads=1)
    with as_on_a_device() as stacks, monkeypatch.context() as patch:
        find_operations = acceleration.find_layer_operations

        def find_layer_operations(*others: Any, overlaps: bool, **options: Any) -> Any:
            told["layers"] = overlaps
            return find_operations(*others, overlaps=overlaps, **options)

        patch.setattr(acceleration, "find_layer_operations", find_layer_operations)
        patch.setattr(acceleration, "find_products", find_products)
        patch.setattr(acceleration, "can_overlap", lambda device: can)
        runner_factory(tmp_path, settings, Speedups(overlapping_launches=is_wanted))()
    assert stacks
    assert told == {"layers": is_wanted and can, "products": is_wanted and can}
