"""The size of the KV cache: what the largest step leaves of free memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from transformers import LlamaConfig

from millstream.core.blocks import BlockPool
from millstream.core.plan import StepOutput
from millstream.core.scheduler import Scheduler
from millstream.errors import StartupError
from millstream.model import sizing
from millstream.model.loading.model import LoadedModel
from millstream.model.paging.kv_cache import LayerShape
from millstream.model.sizing import (
    cache_budget,
    count_blocks,
    count_slots,
    is_memory_scarce,
    make_caches,
    make_states,
    max_step_tokens,
)
from millstream.model.states.state_cache import StateKey, StateShape
from millstream.settings import Settings
from tests.fakes import make_request

GIB = 2**30


def blocks(*, wanted: int | None, step_bytes: int) -> int:
    budget = cache_budget(
        free_bytes=20 * GIB, share=0.5, wanted_bytes=wanted, step_bytes=step_bytes
    )
    return count_blocks(budget, block_bytes=GIB, useful_blocks=1000)


def test_the_cache_leaves_room_for_the_largest_step() -> None:
    assert blocks(wanted=None, step_bytes=GIB) == 10
    assert blocks(wanted=None, step_bytes=15 * GIB) == 5
    assert blocks(wanted=15 * GIB, step_bytes=5 * GIB) == 15
    with pytest.raises(StartupError, match=r"--kv-cache-memory: .* the largest step needs"):
        blocks(wanted=15 * GIB, step_bytes=5 * GIB + 1)
    with pytest.raises(StartupError, match="no room for the KV cache"):
        blocks(wanted=None, step_bytes=20 * GIB)


def test_states_take_what_fits_and_what_is_useful_but_need_room_for_one_sequence() -> None:
    assert count_slots(10 * GIB, slot_bytes=GIB, needed=2, useful=100) == 10
    assert count_slots(10 * GIB, slot_bytes=GIB, needed=2, useful=4) == 4
    with pytest.raises(StartupError, match=r"states of one sequence: they take 2,048\.0 MiB"):
        count_slots(2 * GIB - 1, slot_bytes=GIB, needed=2, useful=100)


def test_fewer_places_for_states_than_requests_are_spoken_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shapes = {StateKey(0, "recurrent", 0): StateShape((256,), torch.float32)}
    cpu = torch.device("cpu")
    slots = make_states(5 * 1024, shapes, cpu, max_running=8)
    assert (slots.num_slots, slots.num_own) == (5, 1)
    assert "room for the states of 5 requests" in caplog.text
    caplog.clear()
    assert make_states(100 * 1024, shapes, cpu, max_running=8).num_slots == 40
    assert not caplog.text


def test_blocks_of_a_model_without_attention_only_count_tokens() -> None:
    assert count_blocks(0, block_bytes=0, useful_blocks=7) == 7


def loaded(device: str, *, width: int = 4096) -> LoadedModel:
    config = LlamaConfig(hidden_size=width, intermediate_size=4 * width)
    facts = {"model": SimpleNamespace(config=config), "max_context": 64, "dtype": torch.float32}
    return cast(LoadedModel, SimpleNamespace(device=torch.device(device), **facts))


def test_the_largest_step_is_what_is_asked_for_or_fits_the_model() -> None:
    settings = Settings()
    assert max_step_tokens(loaded("cuda"), settings) == 4096
    sizes = [max_step_tokens(loaded("cpu", width=width), settings) for width in (64, 1024, 8192)]
    assert sizes == [1024, 546, 256]
    assert max_step_tokens(loaded("cpu"), Settings(max_batch_prefill_tokens=77)) == 77


@pytest.mark.parametrize("places", [1, 4, 64, 256, 512])
def test_a_full_house_leaves_prompts_a_share_of_each_step(places: int) -> None:
    """Everybody comes at once and nobody is done before all have begun."""
    num_prompt, num_steps = 100, 450
    settings = Settings(max_concurrent_requests=places)
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=places * 40, block_size=16),
        max_running=places,
        max_step_tokens=max_step_tokens(loaded("cpu"), settings),
    )
    for index in range(places):
        prompt = tuple(index * 1000 + position for position in range(num_prompt))
        scheduler.add(make_request(index, prompt, max_tokens=num_steps + 50))
    begun = set[int]()
    for _ in range(num_steps):
        plan = scheduler.plan()
        assert plan is not None
        events = scheduler.commit(plan, StepOutput([1] * plan.num_sampled))
        assert begun <= {event.request_id for event in events}, "who runs gets a token each step"
        begun |= {event.request_id for event in events}
    assert len(begun) == places


SHAPES = {0: LayerShape(1, 16, 16)}  # a block of eight tokens takes 1 KiB
STATES = {StateKey(1, "recurrent", 0): StateShape((256,), torch.float32)}  # 1 KiB, too
FEW = Settings(max_concurrent_requests=2, max_batch_prefill_tokens=8, block_size=8)


def test_what_was_measured_stays_free_beside_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "available_bytes", lambda device: 12 * 1024)
    cache, _ = make_caches(loaded("cpu"), FEW, SHAPES, {}, needed_bytes=3 * 1024 - 1)
    assert cache.num_blocks == 9
    cache, _ = make_caches(loaded("cpu"), FEW, SHAPES, {}, needed_bytes=0)
    assert cache.num_blocks == 12
    cache, states = make_caches(loaded("cpu"), FEW, SHAPES, STATES, needed_bytes=2 * 1024)
    assert states is not None
    assert (cache.num_blocks, states.num_slots) == (5, 5)
    for needed in (12 * 1024, 13 * 1024):
        with pytest.raises(StartupError, match="no room for the KV cache"):
            make_caches(loaded("cpu"), FEW, SHAPES, {}, needed_bytes=needed)


@pytest.mark.parametrize(
    ("state_size", "enough"),
    [
        (0, 16),  # KiB: two sequences of eight blocks
        (1, 16 + 10),  # and ten slots: for two sequences and four snapshots of each
        (2, 2 * 20),  # where slots get half of the memory at most
    ],
)
def test_memory_is_scarce_where_its_usual_share_is_less_than_can_be_used(
    state_size: int, enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = StateShape((256 * state_size,), torch.float32)
    states = {StateKey(1, "recurrent", 0): shape} if state_size else {}
    for room, is_scarce in ((enough, False), (enough - 1, True)):
        monkeypatch.setattr(sizing, "cache_budget", lambda room=room, **_: room * 1024)
        assert is_memory_scarce(loaded("cpu"), FEW, SHAPES, states) == is_scarce
        told = FEW.model_copy(update={"kv_cache_memory": 1024})
        assert not is_memory_scarce(loaded("cpu"), told, SHAPES, states)
