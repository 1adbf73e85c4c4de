"""The cache gets what graphs and steps leave of a device: with a stand-in for its memory."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from millstream.core.plan import Plan
from millstream.model import build, sizing
from millstream.model.cuda import device_memory, memory_profile, warm_up
from millstream.model.cuda.capture import CapturedExecution, capture_decodes
from millstream.model.cuda.device_memory import DeviceMemory
from millstream.model.cuda.graph_sizes import GraphSizes, spread
from millstream.model.cuda.memory_profile import further_bytes
from millstream.model.cuda.recording import Recording
from millstream.model.cuda.staging import Staging
from millstream.model.cuda.trial_steps import run_ahead
from millstream.model.execution import EagerExecution
from millstream.model.paging.kv_cache import KVCache
from millstream.model.runner import ModelRunner
from millstream.model.speedups import Speedups
from millstream.settings import Settings
from tests.model.architectures import make_model
from tests.model.cuda.test_cuda import CPU, EagerRecording, PlainBackend
from tests.model.test_architectures import greedy_request
from tests.model.test_schedules import BLOCK_SIZE, drive

MAX_ROWS = 48
TOTAL, BEFORE, RESERVE = 20_000_000, 2_000_000, 1_000_000  # BEFORE: taken by weights and others
FIRST_GRAPH, FURTHER_GRAPH, LARGEST_STEP = 2_000_000, 30_000, 4_000_000


class Card(DeviceMemory):
    """Stands in for a device's memory. What is captured and computed is taken from it.

    events: what happened, in order. further: what a graph takes beside the first; fails: raises in
    the place of a largest step, given how many there were before.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.events: list[str] = []
        self.further = FURTHER_GRAPH
        self.fails: Callable[[int], Exception | None] = lambda count: None
        self.trial_caches: list[weakref.ref[KVCache]] = []
        self._has: set[str] = set()
        super().__init__(CPU)

    def free_bytes(self) -> int:
        return TOTAL - BEFORE - self.taken

    def release_unused(self) -> None:
        gc.collect()
        assert all(cache() is None for cache in self.trial_caches)
        self.taken = 0
        self._has.clear()

    def record(self, compute: Callable[[], Tensor]) -> Recording:
        recording = EagerRecording(compute)
        before = self.taken
        self.take_once("graphs", FIRST_GRAPH - self.further)
        self.taken += self.further
        self.events.append("graph")
        recording.num_bytes = self.taken - before
        return recording

    def run_ahead(self, eager: EagerExecution, plan: Plan) -> None:
        if error := self.fails(self.events.count("step")):
            self.events.append("step")
            raise error
        run_ahead(eager, plan)
        self.take_once("steps", LARGEST_STEP)
        self.events.append("step")

    def take_once(self, what: str, num_bytes: int) -> None:
        self.taken += 0 if what in self._has else num_bytes
        self._has.add(what)

    def make_trial_cache(self, *shapes: Any, **options: Any) -> KVCache:
        cache = KVCache(*shapes, **options)
        self.trial_caches.append(weakref.ref(cache))
        return cache

    def make_caches(self, *others: Any, **options: Any) -> Any:
        caches = sizing.make_caches(*others, **options)
        self.taken += caches[0].num_bytes
        self.events.append("caches")
        return caches

    def _total_bytes(self) -> int:
        return TOTAL

    def _allocated_bytes(self) -> int:
        return BEFORE // 2


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    monkeypatch.setattr(device_memory, "_LEAST_RESERVE", RESERVE)
    card = Card()
    monkeypatch.setattr(DeviceMemory, "of", lambda device: card)
    monkeypatch.setattr(warm_up, "capture_decodes", partial(capture_decodes, record=card.record))
    monkeypatch.setattr(warm_up, "run_ahead", card.run_ahead)
    monkeypatch.setattr(memory_profile, "KVCache", card.make_trial_cache)
    monkeypatch.setattr(sizing, "available_bytes", lambda device: card.free_bytes())
    monkeypatch.setattr(build, "make_caches", card.make_caches)
    return card


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models whose caches could use more memory than the card has."""
    found = {}
    for family in ("llama", "lfm2"):
        found[family] = tmp_path_factory.mktemp(family)
        make_model(family, found[family], num_key_value_heads=4)
    return found


def start(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    handles_all: bool = True,
    speedups: Speedups | None = None,
    **options: Any,
) -> ModelRunner:
    staging = Staging.for_steps(CPU, max_tokens=1024, max_rows=MAX_ROWS, max_blocks=256)
    backend = PlainBackend(handles_all=handles_all)
    monkeypatch.setattr(build, "_attention", lambda *_: ([backend], staging))
    options = {
        "max_concurrent_requests": MAX_ROWS,
        "max_batch_prefill_tokens": 128,
        "block_size": BLOCK_SIZE,
        **options,
    }
    settings = Settings(model_id=str(folder), **options)
    return build.runner_factory(folder, settings, speedups or Speedups())()


def answer(runner: ModelRunner) -> list[int]:
    driver = drive(runner, num_blocks=20, max_running=2, max_step_tokens=24)
    driver.scheduler.add(greedy_request(1, (1, 2, 3), 5))
    driver.run()
    return driver.answers[1]


@pytest.mark.parametrize(
    ("family", "speedups"),
    [
        ("llama", Speedups()),
        ("llama", Speedups(draw_graphs=False)),
        ("llama", Speedups(prompt_graphs=False)),
        ("llama", Speedups(graphs=False)),
        ("lfm2", Speedups()),
    ],
)
def test_the_cache_leaves_the_reserve_when_all_is_captured(
    card: Card,
    folders: dict[str, Path],
    family: str,
    speedups: Speedups,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Estimated to the byte, since graphs of this card cost the same."""
    caplog.set_level(logging.INFO)
    runner = start(folders[family], monkeypatch, speedups=speedups)
    block_bytes = runner.cache.num_bytes // runner.cache.num_blocks
    if family == "llama":
        assert RESERVE <= card.free_bytes() < RESERVE + block_bytes
    else:  # whose states take some, which this card does not count
        assert card.free_bytes() >= RESERVE
    before, after = card.events[:], []
    while before[-1] != "caches":
        after.append(before.pop())
    assert before.count("step") == after.count("step") == 1
    assert isinstance(runner.execution, CapturedExecution) == speedups.graphs
    if speedups.graphs:
        assert 4 <= before.count("graph") < after.count("graph")
    assert len(answer(runner)) == 5
    assert "memory of the device in GiB" in caplog.text
    assert "--kv-cache-memory" not in caplog.text


def test_a_measurement_that_fails_leaves_the_usual_share(
    card: Card,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    card.fails = lambda count: None if count else RuntimeError("the model asks the host")
    runner = start(folders["llama"], monkeypatch)
    assert "is not known: RuntimeError: the model asks the host" in caplog.text
    free = TOTAL - BEFORE
    block_bytes = runner.cache.num_bytes // runner.cache.num_blocks
    assert 0 <= free * 0.5 - runner.cache.num_bytes < block_bytes, "half of it, on a CPU"
    assert len(answer(runner)) == 5


@pytest.mark.parametrize(
    "options",
    [
        {"kv_cache_memory": 2**20},
        {"max_concurrent_requests": 1},  # the cache holds all that one sequence can use
        {"handles_all": False},
    ],
)
def test_where_nothing_depends_on_it_nothing_is_measured(
    card: Card,
    folders: dict[str, Path],
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(folders["llama"], monkeypatch, **options)
    assert card.events[0] == "caches"
    assert card.events[-1] == "step", "the largest one is run all the same"


def test_too_little_that_is_left_is_told(
    card: Card,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Graphs take more when they are captured in earnest. The server goes on."""

    def make_caches(*others: Any, **options: Any) -> Any:
        card.further *= 2
        return card.make_caches(*others, **options)

    monkeypatch.setattr(build, "make_caches", make_caches)
    runner = start(folders["llama"], monkeypatch)
    missing = RESERVE - card.free_bytes()
    assert missing > RESERVE / 2
    smaller = (runner.cache.num_bytes - missing) / 2**20
    assert f"start with --kv-cache-memory {smaller:.0f}MiB or less" in caplog.text
    assert len(answer(runner)) == 5


def test_a_largest_step_that_does_not_fit_is_told(
    card: Card,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    card.fails = lambda count: torch.OutOfMemoryError("tried to allocate") if count else None
    runner = start(folders["llama"], monkeypatch)
    assert "the largest step does not fit beside the KV cache" in caplog.text
    assert "--kv-cache-memory" in caplog.text
    assert len(answer(runner)) == 5


def test_graphs_that_were_not_tried_cost_what_further_ones_did() -> None:
    assert further_bytes([100, 10, 14], 10) == 7 * 12
    assert further_bytes([100, 10, 14], 3) == 0
    assert further_bytes([], 3) == 0, "they cannot be captured"
    assert further_bytes([100], 3) == 200


@pytest.mark.parametrize("max_rows", [1, 3, 8, 64, 500])
@pytest.mark.parametrize("max_prompt_tokens", [0, 32, 100, 4096])
def test_the_graphs_that_are_tried_are_the_largest_and_a_few_more(
    max_rows: int, max_prompt_tokens: int
) -> None:
    sizes = GraphSizes.of(max_rows=max_rows, max_prompt_tokens=max_prompt_tokens, draws=True)
    sample = sizes.sample()
    assert sample.draws
    assert set(sample.decodes) <= set(sizes.decodes)
    assert max(sample.decodes) == max(sizes.decodes)
    assert set(sample.prompts) <= set(sizes.prompts)
    for attribute in ("num_rows", "num_wanted", "decodes", "chunks"):
        values = [[getattr(size, attribute) for size in s.prompts] for s in (sizes, sample)]
        assert max(values[0], default=0) == max(values[1], default=0)


def test_what_is_tried_lies_between_the_smallest_and_the_largest() -> None:
    assert spread(()) == ()
    assert spread([3, 5, 7, 9]) == (3, 5, 7, 9)
    assert spread(range(10)) == (0, 3, 6, 9)
    assert spread(range(35)) == (0, 11, 22, 34)
