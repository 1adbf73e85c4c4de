"""Decoder layers as one module, as on a CUDA device: plain torch stands in for its kernels."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from millstream.model import acceleration, reference
from millstream.model.build import runner_factory
from millstream.model.cpu.threads import Threads
from millstream.model.cuda.layer_trial import find_layer_operations
from millstream.model.decoder.stack import DecoderStack
from millstream.model.layer_operations import LayerOperations
from millstream.model.loading.model import LoadedModel
from millstream.model.paging.kv_cache import LayerShape
from millstream.model.speedups import Speedups
from millstream.settings import Settings
from tests.model.architectures import make_model
from tests.model.cuda.test_cuda import CudaRunner, run_all
from tests.model.test_architectures import greedy_request, make_runner, random_prompts

CPU = torch.device("cpu")
PLAIN = LayerOperations.of(reference)
SHAPES = [LayerShape(2, 16, 16), LayerShape(1, 24, 24), LayerShape(1, 24, 8)]


def test_right_operations_are_found() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        found = find_layer_operations(
            SHAPES, sizes=[48, 64], dtype=dtype, device=CPU, make=lambda: PLAIN
        )
        assert found is PLAIN


def _wrong_norm(x: Tensor, weight: Tensor, eps: float, *, unit_offset: bool = False) -> Tensor:
    return reference.rms_norm(x, weight, 100 * eps, unit_offset=not unit_offset)


def _forgets_values(merged: Tensor, **options: object) -> Tensor:
    query = PLAIN.heads_to_cache(merged, **options)
    values = options["value_cache"]
    assert isinstance(values, Tensor)
    values.zero_()
    return query


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (replace(PLAIN, rms_norm=_wrong_norm), "a norm"),
        (replace(PLAIN, add_rms_norm=lambda x, y, *_, **__: (x, x + y)), "a sum"),
        (replace(PLAIN, silu_mul=reference.gelu_tanh_mul), "silu"),
        (replace(PLAIN, gelu_tanh_mul=reference.silu_mul), "gelu"),
        (replace(PLAIN, heads_to_cache=_forgets_values), "values in the cache"),
    ],
)
def test_wrong_operations_are_not_used(
    wrong: LayerOperations, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    found = find_layer_operations(
        SHAPES, sizes=[48], dtype=torch.float32, device=CPU, make=lambda: wrong
    )
    assert found is None
    assert what in caplog.text


def test_operations_that_cannot_be_made_are_left_to_torch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse() -> LayerOperations:
        raise NotImplementedError("triton is not installed")

    caplog.set_level("INFO")
    found = find_layer_operations(SHAPES, sizes=[48], dtype=torch.float32, device=CPU, make=refuse)
    assert found is None
    assert "left to torch: NotImplementedError: triton is not installed" in caplog.text


@contextmanager
def as_on_a_device(operations: LayerOperations = PLAIN) -> Iterator[list[DecoderStack]]:
    """Inside, models are prepared as on a CUDA device. Gives the stacks they get, in time."""
    stacks: list[DecoderStack] = []
    accelerate = acceleration.accelerate

    def accelerate_there(loaded: LoadedModel, *others: Any) -> Threads:
        threads = accelerate(replace(loaded, device=torch.device("cuda")), *others)
        stacks.extend(m for m in loaded.model.modules() if isinstance(m, DecoderStack))
        return threads

    def find_here(*others: Any, device: torch.device, **options: Any) -> LayerOperations | None:
        assert device.type == "cuda"
        return find_layer_operations(*others, device=CPU, make=lambda: operations, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acceleration, "find_layer_operations", find_here)
        patch.setattr("millstream.model.build.accelerate", accelerate_there)
        yield stacks


@pytest.mark.parametrize("family", ["llama", "qwen3", "qwen2", "smollm3", "gemma"])
def test_layers_are_one_module_and_answer_as_before(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Norms of heads, biases, layers without positions, other gates; eager and replayed steps."""
    caplog.set_level("INFO")
    make_model(family, tmp_path)
    requests = [greedy_request(i, p, 12) for i, p in enumerate(random_prompts(5, seed=2), 1)]
    plain = run_all(make_runner(tmp_path, block_size=8), requests, random.Random(0))
    with as_on_a_device() as stacks:
        cuda = CudaRunner(tmp_path, max_rows=4)
    assert len(stacks) == 1
    assert "decoder layers as one, called from Python" in caplog.text
    for layer in stacks[0].layers:
        assert len(layer.qkv.linears) == 1, "queries, keys and values are one product"
    assert run_all(cuda.runner, requests, random.Random(0)) == plain
    assert cuda.graphs.num_replays > 5


def test_a_model_that_is_not_recognised_keeps_its_layers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    make_model("gemma2", tmp_path)
    requests = [greedy_request(i, p, 8) for i, p in enumerate(random_prompts(3, seed=3), 1)]
    plain = run_all(make_runner(tmp_path, block_size=8), requests, random.Random(0))
    with as_on_a_device() as stacks:
        cuda = CudaRunner(tmp_path, max_rows=4)
    assert stacks == []
    assert "its layers are run one by one" in caplog.text
    assert run_all(cuda.runner, requests, random.Random(0)) == plain


@pytest.mark.parametrize("speedups", [Speedups(stack=False), Speedups(decoder=False)])
def test_speedups_switch_it_off(speedups: Speedups, tmp_path: Path) -> None:
    make_model("llama", tmp_path)
    settings = Settings(model_id=str(tmp_path), block_size=8, threads=1)
    with as_on_a_device() as stacks:
        runner_factory(tmp_path, settings, speedups)()
    assert stacks == []
