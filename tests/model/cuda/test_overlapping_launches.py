"""Kernels that are launched while the one before them ends, and what they do before it has."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from millstream.model import acceleration, build
from millstream.model.build import runner_factory
from millstream.model.cuda import selection
from millstream.model.cuda.backend_trial import BackendTrial
from millstream.model.cuda.dense_prompts import DensePromptBackend
from millstream.model.cuda.dense_trial import with_dense_prompts
from millstream.model.cuda.overlap_trial import can_overlap
from millstream.model.cuda.staging import Staging
from millstream.model.loading.model import LoadedModel
from millstream.model.paging.backend import AttentionBackend
from millstream.model.paging.kv_cache import LayerShape
from millstream.model.speedups import Speedups
from millstream.settings import Settings
from tests.model.architectures import make_model
from tests.model.cuda.test_dense_prompts import Clock, Varlen, plain_kernels
from tests.model.cuda.test_fused_layers import as_on_a_device
from tests.model.cuda.triton_scripts import run_script

# What each kernel reads before it has waited, and that nothing is written before.
_COMPILATION = """
import re
from millstream.model.cuda import (
    dependent_launch, triton_kernels, triton_layer_kernels, triton_product_kernels,
)
from tests.model.cuda.triton_scripts import compile_for_hopper

POINTERS = {"slots": "*i64", "sums": "*fp32", "positions": "*i64", "tables": "*i32",
            "parts": "*fp32", "bests": "*fp32", "totals": "*fp32"}
FLOATS = ("eps", "q_eps", "k_eps", "scale", "softcap")
NUMBERS = {name: "fp32" for name in FLOATS} | {
    name: "i32" for name in
    ("rows", "outputs", "inputs", "x_stride", "merged_stride", "angle_stride", "query_stride",
     "table_stride")
}
ACCESS = re.compile("ld.global|st.global|cp.async.c|prefetch.global|griddepcontrol.wait")

def before_the_wait(kernel, divisible=(), types={}, **constants):
    text = compile_for_hopper(
        kernel, types=POINTERS | NUMBERS | types, divisible=divisible,
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
before_the_wait(triton_product_kernels.join_product, types={"parts": "i32"}, TILE=1024,
                HAS_BIAS=True)
heads = dict(WIDTH=128, WIDTH_PAD=128, SPLITS=8)
before_the_wait(triton_kernels.decode_parts, DIM=128, DIM_PAD=128, TILE=128, WINDOW=0, CHUNK=0,
                SOFTCAP=False, PAGE=16, KV_HEADS=8, GROUP=4, GROUP_PAD=16, **heads)
before_the_wait(triton_kernels.join_parts, HEADS=32, SINKS=True, **heads)
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
        "decode_parts :",
        "join_parts :",
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
def test_layers_products_and_attention_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_wanted: bool, can: bool
) -> None:
    told: dict[str, bool] = {}

    def find_products(device: torch.device, *, overlaps: bool) -> None:
        told["products"] = overlaps

    def find_backends(*_: Any, overlaps: bool, **__: Any) -> list[AttentionBackend]:
        told["attention"] = overlaps
        return []

    attention = build._attention

    def attention_there(loaded: LoadedModel, *others: Any) -> Any:
        return attention(replace(loaded, device=torch.device("cuda")), *others)

    def staging_here(device: torch.device, **sizes: int) -> Staging:
        return Staging.for_steps(torch.device("cpu"), **sizes)

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
        patch.setattr(build, "can_overlap", lambda device: can)
        patch.setattr(build, "_attention", attention_there)
        patch.setattr(build, "find_backends", find_backends)
        patch.setattr(build, "Staging", SimpleNamespace(for_steps=staging_here))
        runner_factory(tmp_path, settings, Speedups(overlapping_launches=is_wanted))()
    assert stacks
    assert told == dict.fromkeys(("layers", "products", "attention"), is_wanted and can)


@pytest.mark.parametrize("overlaps", [True, False])
@pytest.mark.parametrize("is_dense", [True, False])
def test_attention_is_told(
    monkeypatch: pytest.MonkeyPatch, *, overlaps: bool, is_dense: bool
) -> None:
    """Also by the backend that attends densely to prompts, and in the trial before it is used."""
    told: list[bool] = []
    kernels, varlen = plain_kernels(), Varlen()
    decode = kernels.decode

    def decode_and_tell(*passed: Any, overlaps: bool) -> Any:
        told.append(overlaps)
        return decode(*passed, overlaps=overlaps)

    kernels.decode = decode_and_tell
    modules = {
        "millstream.model.cuda.triton_attention": kernels,
        "torch.nn.attention.varlen": SimpleNamespace(__name__="varlen", varlen_attn=varlen),
    }
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(importlib, "import_module", modules.__getitem__)
    monkeypatch.setattr(
        selection,
        "with_dense_prompts",
        partial(with_dense_prompts, seconds_of=Clock(varlen, lambda tokens, keys: 3.0)),
    )
    backends = selection.find_backends(
        [LayerShape(2, 16, 16)],
        num_heads=lambda shape: 4,
        block_size=16,
        dtype=torch.float32,
        device=torch.device("cpu"),
        most_dense_keys=8192 if is_dense else 0,
        overlaps=overlaps,
    )
    (backend,) = backends
    assert isinstance(backend, DensePromptBackend) == is_dense
    trial = BackendTrial(
        LayerShape(2, 16, 16),
        num_heads=4,
        block_size=16,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    assert told
    count = len(told)
    trial.require_right(backend)
    assert len(told) > count
    assert set(told) == {overlaps}
