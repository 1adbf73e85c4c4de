"""Who computes a step: the kernels' threads or torch's, and nobody's settings changed after it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import torch
from torch import Tensor

from millstream.core.plan import Plan
from millstream.model.cpu.kernels import Kernels, plain
from millstream.model.cpu.threads import Threads
from millstream.model.forward import Forward
from millstream.model.runner import ModelRunner
from millstream.model.sampling.sampler import Sampler
from tests.model.architectures import make_model
from tests.model.compiled_cases import Sequence
from tests.model.steps import run_step
from tests.model.test_architectures import make_runner

COUNT = 3
SMALL, LARGE = 2**22 - 1, 2**22


@pytest.fixture(autouse=True)
def own_count() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(COUNT)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def chosen() -> list[int]:
    """What kernels were told by use_threads()."""
    return []


def threads(chosen: list[int], *, is_alone: bool) -> Threads:
    return Threads(replace(plain(), use_threads=chosen.append), is_alone=is_alone)


def test_kernels_alone(chosen: list[int]) -> None:
    with threads(chosen, is_alone=True).forward():
        assert torch.get_num_threads() == 1
        assert chosen == [COUNT]
    assert torch.get_num_threads() == COUNT
    assert chosen == [COUNT, -1]


def test_kernels_beside_torch(chosen: list[int]) -> None:
    with threads(chosen, is_alone=False).forward():
        assert torch.get_num_threads() == COUNT
        assert chosen == [0]
    assert torch.get_num_threads() == COUNT
    assert chosen == [0, -1]


def test_no_kernels() -> None:
    found = Threads(None, is_alone=False)
    with found.forward():
        assert torch.get_num_threads() == COUNT
    with found.for_small_operations(SMALL):
        assert torch.get_num_threads() == COUNT


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_failing_pass_leaves_nothing_behind(is_alone: bool, chosen: list[int]) -> None:
    found = threads(chosen, is_alone=is_alone)
    with pytest.raises(ZeroDivisionError), found.forward():
        raise ZeroDivisionError
    assert torch.get_num_threads() == COUNT
    assert chosen[-1] == -1
    with pytest.raises(ZeroDivisionError), found.for_small_operations(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == COUNT


@pytest.mark.parametrize(
    ("is_alone", "size", "expected"),
    [
        (True, 0, 1),
        (True, SMALL, 1),
        (True, LARGE, COUNT),
        (False, SMALL, COUNT),
        (False, LARGE, COUNT),
    ],
)
def test_operations(is_alone: bool, size: int, expected: int, chosen: list[int]) -> None:
    with threads(chosen, is_alone=is_alone).for_small_operations(size):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == COUNT
    assert chosen == []


def test_one_in_another(chosen: list[int]) -> None:
    found = threads(chosen, is_alone=True)
    with found.for_small_operations(SMALL):
        with found.forward():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == COUNT


def test_other_threads_keep_their_count(chosen: list[int]) -> None:
    asked: Queue[bool] = Queue()
    answers: Queue[int] = Queue()

    def answer() -> None:
        while asked.get(timeout=30):
            answers.put(torch.get_num_threads())

    other = threading.Thread(target=answer)
    other.start()
    try:
        asked.put(True)
        assert answers.get(timeout=30) == COUNT
        with threads(chosen, is_alone=True).forward():
            asked.put(True)
            assert answers.get(timeout=30) == COUNT
        asked.put(True)
        assert answers.get(timeout=30) == COUNT
    finally:
        asked.put(False)
        other.join(timeout=30)


def noted(call: Callable[..., Any], counts: list[int]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        counts.append(torch.get_num_threads())
        return call(*args, **kwargs)

    return wrapper


# A model of which kernels compute everything, and one with products by torch.
@pytest.mark.parametrize(("dtype", "expected"), [("bfloat16", 1), ("float32", COUNT)])
def test_a_runner_steps_so(
    dtype: str,
    expected: int,
    kernels: Kernels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not kernels.fast_products()[0]:
        pytest.skip("torch computes all products on this processor")
    make_model("llama", tmp_path)
    runner = make_runner(tmp_path, dtype=dtype, native_kernels="on", block_size=8)
    in_forward: list[int] = []
    in_sampler: list[int] = []
    monkeypatch.setattr(Forward, "__call__", noted(Forward.__call__, in_forward))
    monkeypatch.setattr(Sampler, "launch", noted(Sampler.launch, in_sampler))
    torch.set_num_threads(COUNT)
    step(runner)
    assert (in_forward, in_sampler) == ([expected], [expected])
    assert torch.get_num_threads() == COUNT


def test_a_runner_whose_step_fails(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("llama", tmp_path)
    runner = make_runner(tmp_path, dtype="bfloat16", native_kernels="on", block_size=8)

    def fail(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("no memory")

    monkeypatch.setattr(Forward, "__call__", fail)
    torch.set_num_threads(COUNT)
    with pytest.raises(RuntimeError, match="no memory"):
        step(runner)
    assert torch.get_num_threads() == COUNT


def step(runner: ModelRunner) -> None:
    sequence = Sequence.all()[0]
    run_step(runner, Plan((sequence.chunk(0, sequence.prompt),)))
