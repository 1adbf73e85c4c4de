"""No kernel is compiled once an engine is ready: counted by Triton itself, without a device.

Triton finds out what each launch asks for, and calls its hook; only its compiler and the launch
itself are left out, and plain torch computes in their place.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from millstream.model import build, reference
from millstream.model.attention import LayerOptions
from millstream.model.cuda import warm_up
from millstream.model.cuda.backends import TritonBackend
from millstream.model.cuda.capture import CapturedExecution, capture_decodes
from millstream.model.cuda.late_kernels import LateKernels
from millstream.model.cuda.product_tiles import ROW_COUNTS, ProductTile
from millstream.model.cuda.staging import Staging
from millstream.model.cuda.warm_up import row_counts
from millstream.model.layer_operations import LayerOperations
from millstream.model.runner import ModelRunner
from millstream.model.speedups import Speedups
from millstream.settings import Settings
from tests.model.architectures import make_model
from tests.model.cuda.test_cuda import CPU, EagerRecording, PlainBackend
from tests.model.cuda.test_fused_layers import as_on_a_device
from tests.model.test_architectures import greedy_request, random_prompts
from tests.model.test_schedules import drive

MAX_ROWS = 16
PLAIN = LayerOperations.of(reference)


def test_rows_of_every_kind_are_found() -> None:
    assert row_counts(9, lambda rows: rows // 4) == [1, 4, 8]
    assert row_counts(3, lambda rows: 0) == [1]
    assert row_counts(3, lambda rows: -rows) == [1, 2, 3]


@pytest.fixture
def knobs(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Those of a Triton whose hook somebody else has already."""
    runtime = SimpleNamespace(jit_post_compile_hook=lambda **told: told["repr"])
    triton = SimpleNamespace(knobs=SimpleNamespace(runtime=runtime))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(importlib, "import_module", lambda name: triton)
    return runtime


def test_kernels_are_counted_from_when_an_engine_is_ready(
    knobs: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    first = LateKernels.watch()
    hook = knobs.jit_post_compile_hook
    told = {"fn": SimpleNamespace(name="decode_parts"), "repr": "theirs"}
    assert hook(**told) == "theirs", "who had the hook before still has it"
    assert "kernel decode_parts was compiled while requests were served" in caplog.text
    second = LateKernels.watch()
    assert knobs.jit_post_compile_hook is hook
    hook(**told)
    assert (first(), second()) == (2, 1)
    del first
    assert len(hook.counters) == 1, "an engine that is gone counts no more"


def test_a_triton_that_does_not_tell_is_not_counted(knobs: SimpleNamespace) -> None:
    del knobs.jit_post_compile_hook
    assert LateKernels.watch()() is None


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """The names of kernels as Triton would compile them for an H100, in order."""
    pytest.importorskip("triton")
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    names: list[str] = []
    device = SimpleNamespace(
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
    )
    run = JITFunction.run

    def run_without_launch(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        return run(kernel, *args, grid=grid, warmup=True, **options)

    def note(**told: Any) -> None:
        names.append(told["fn"].name.split(".")[-1])

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(JITFunction, "run", run_without_launch)
    monkeypatch.setattr(knobs.runtime, "jit_post_compile_hook", note)
    monkeypatch.setattr(driver, "_active", device)
    _forget_kernels()
    yield names
    _forget_kernels()


def _forget_kernels() -> None:
    from millstream.model.cuda import (
        triton_kernels,
        triton_layer_kernels,
        triton_product_kernels,
    )

    for module in (triton_kernels, triton_layer_kernels, triton_product_kernels):
        for kernel in vars(module).values():
            if hasattr(kernel, "device_caches"):
                kernel.device_caches.clear()


def test_triton_calls_the_hook_for_each_kind_of_launch(compiled: list[str]) -> None:
    """Really compiled, by the code that is generated for a device."""
    from millstream.model.cuda import triton_layers

    count = LateKernels.watch()
    merged = torch.zeros(3, 64)
    triton_layers.silu_mul(merged)
    triton_layers.silu_mul(merged[:1])
    assert count() == 1
    triton_layers.gelu_tanh_mul(merged)
    assert count() == 2
    assert compiled == ["gate_tile", "gate_tile"], "the hook of before hears of them, too"


def test_rows_are_of_one_kind_wherever_they_lie(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven heads of twelve numbers: no row of the batch need begin at 16 bytes."""
    import triton.compiler

    from millstream.model.cuda import triton_attention

    monkeypatch.setattr(triton.compiler, "compile", lambda *args, **options: object())
    keys = torch.zeros(4, 16, 7, 12, dtype=torch.float16)
    query = torch.zeros(600, 7, 12, dtype=torch.float16)
    tables, starts = torch.zeros(600, 1, dtype=torch.int32), torch.zeros(600, dtype=torch.int64)
    for rows in (101, 102, 103, 104, 256):
        triton_attention.decode(
            query[:rows], keys, keys, tables[:rows], starts[:rows], LayerOptions(0.1)
        )
        triton_attention.prefill(
            query[rows:],
            keys,
            keys,
            tables[:1],
            starts=starts[:1],
            firsts=torch.tensor([0, 600 - rows], dtype=torch.int32),
            options=LayerOptions(0.1),
        )
    assert sorted(compiled) == ["decode_parts", "join_parts", "prefill_tile"]


@pytest.mark.parametrize("parts", [1, 4])
def test_few_rows_are_of_the_kind_that_was_tried(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    """What is run before a product is used meets the kernels of all numbers of rows."""
    import triton.compiler

    from millstream.model.cuda.triton_products import multiply

    monkeypatch.setattr(triton.compiler, "compile", lambda *args, **options: object())
    tile = ProductTile(channels=16, depth=64, parts=parts, warps=4, stages=3)
    for inputs in (512, 500):
        weight = torch.zeros(96, inputs, dtype=torch.float16)
        for counts in (ROW_COUNTS, range(1, ROW_COUNTS[-1] + 1)):
            for rows in counts:
                multiply(torch.zeros(rows, inputs, dtype=torch.float16), weight, None, tile)
            if counts is ROW_COUNTS:
                known = list(compiled)
    assert compiled == known
    assert known.count("product_tile") == 6, "one row, up to 16, up to 32; two numbers of inputs"


class AsOnACard:
    """Triton's launches, and plain torch's results. ran: the numbers of rows that decoded."""

    def __init__(self) -> None:
        from millstream.model.cuda import dependent_launch, triton_attention, triton_layers

        self._attention = triton_attention
        self._overlaps = dependent_launch.IS_KNOWN
        self._layers = triton_layers.layer_operations(overlaps=self._overlaps)
        self._plain = PlainBackend()
        self.ran: set[int] = set()
        self.operations = LayerOperations(
            **{name: partial(self._both, name) for name in LayerOperations.__dataclass_fields__}
        )

    def _both(self, name: str, *args: Any, **options: Any) -> Any:
        getattr(self._layers, name)(*args, **options)
        return getattr(PLAIN, name)(*args, **options)

    @property
    def backend(self) -> TritonBackend:
        backend = TritonBackend(self._attention, overlaps=self._overlaps)
        launched = {"decode": backend.decode, "prefill": backend.prefill}

        def compute(kind: str, query: Tensor, keys: Tensor, values: Tensor, *others: Any) -> Tensor:
            launched[kind](query, keys, values, *others)
            if kind == "decode":
                self.ran.add(len(query))
            found: Tensor = getattr(self._plain, kind)(query, keys, values, *others)
            return found

        backend.decode = partial(compute, "decode")  # type: ignore[method-assign]
        backend.prefill = partial(compute, "prefill")  # type: ignore[method-assign]
        return backend


@pytest.mark.parametrize(
    "speedups", [Speedups(graphs=False), Speedups(prompt_graphs=False), Speedups()]
)
def test_steps_meet_no_kernel_that_is_new(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, speedups: Speedups
) -> None:
    """Seven key heads: the parts of 16 rows are a quarter of those of 8, so that no captured step
    has the number between."""
    import triton.compiler

    card = AsOnACard()
    heads = {"num_attention_heads": 7, "num_key_value_heads": 7, "head_dim": 16}
    make_model("llama", tmp_path, num_hidden_layers=2, hidden_size=112, **heads)
    monkeypatch.setattr(triton.compiler, "compile", lambda *args, **options: object())
    staging = Staging.for_steps(CPU, max_tokens=1024, max_rows=MAX_ROWS, max_blocks=64)
    monkeypatch.setattr(build, "_attention", lambda *_: ([card.backend], staging))
    capture = partial(capture_decodes, record=EagerRecording)
    monkeypatch.setattr(warm_up, "capture_decodes", capture)
    settings = Settings(model_id=str(tmp_path), max_concurrent_requests=MAX_ROWS)
    with as_on_a_device(card.operations) as stacks:
        make = build.runner_factory(tmp_path, settings, speedups)
        runner: ModelRunner = make()
    assert stacks
    execution = runner.execution
    assert isinstance(execution, CapturedExecution) == speedups.graphs
    assert set(compiled) == {
        "norm_row", "place_head", "gate_tile", "decode_parts", "join_parts", "prefill_tile",
    }  # fmt: skip
    card.ran.clear()
    source = random.Random(1)
    driver = drive(
        runner, num_blocks=200, max_running=MAX_ROWS, max_step_tokens=64, plans_ahead=lambda: False
    )
    for number, prompt in enumerate(random_prompts(24, seed=3, longest=40), 1):
        driver.scheduler.add(greedy_request(number, prompt, source.randint(6, 20)))
        driver.step()
    driver.run()
    if isinstance(execution, CapturedExecution) and execution.prompts is not None:
        assert execution.prompts.num_replays > 10
    else:
        assert card.ran >= set(range(1, MAX_ROWS)), "every number of rows"
    assert runner.num_late_kernels == 0, compiled
