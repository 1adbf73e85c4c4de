"""Block tables kept from step to step are those of the scheduler, whatever happened in between."""

from __future__ import annotations

import random

import numpy as np
import torch

from millstream.core.plan import Chunk, Plan
from millstream.model.paging.block_tables import BlockTables
from millstream.model.paging.kv_cache import KVCache, LayerShape
from millstream.model.paging.packer import Packer
from tests.model.test_architectures import greedy_request

PADDING = 999


def chunk(number: int, table: list[int], *, start: int = 0, length: int = 1) -> Chunk:
    tokens = [1] * length
    return Chunk(greedy_request(number, (1,), 1), tokens, start, table, tokens, is_last=True)


def read(tables: BlockTables, chunks: list[Chunk], width: int) -> list[list[int]]:
    found: list[list[int]] = tables.blocks(tables.rows(chunks), width).tolist()
    return found


def padded(table: list[int], width: int) -> list[int]:
    return (table + [PADDING] * width)[:width]


def test_random_histories() -> None:
    """Requests come, grow, are preempted (another list under the same id), pause and go."""
    source = random.Random(1)
    tables = BlockTables(PADDING)
    running: dict[int, list[int]] = {}
    for step in range(600):
        for number in list(running):
            event = source.random()
            if event < 0.4:
                running[number] += [source.randrange(900) for _ in range(source.choice([1, 1, 40]))]
            elif event < 0.5:
                running[number] = [source.randrange(900) for _ in range(source.randint(1, 9))]
            elif event < 0.6:
                del running[number]
        if len(running) < 20:
            running[step] = [source.randrange(900) for _ in range(source.randint(1, 70))]
        planned = [n for n in running if source.random() < 0.8]
        width = source.choice([1, 5, 80, 300])
        found = read(tables, [chunk(n, running[n]) for n in planned], width)
        assert found == [padded(running[n], width) for n in planned]
        assert len(tables) == len(planned), "rows of requests that are not in the step"


def test_a_table_that_did_not_change_is_not_read_again() -> None:
    class Counting(list[int]):
        num_read = 0

        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            found = super().__getitem__(index)
            self.num_read += len(found)
            return found

    tables = BlockTables(PADDING)
    table = Counting(range(500))
    tables.rows([chunk(1, table)])
    tables.rows([chunk(1, table)])
    assert table.num_read == 500
    table.append(7)
    assert read(tables, [chunk(1, table)], 502) == [[*range(500), 7, PADDING]]
    assert table.num_read == 501


def test_a_packed_step_maps_tokens_to_slots() -> None:
    cache = KVCache(
        {0: LayerShape(1, 2, 2)},
        num_blocks=9,
        block_size=8,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    packer = Packer(cache)
    chunks = (
        chunk(1, [3, 5], start=9),
        chunk(2, [6], start=2),
        chunk(3, [8, 1], start=6, length=4),
    )
    for _ in range(2):
        step = packer.pack(Plan(chunks))
        assert step.positions.tolist() == [[9, 2, 6, 7, 8, 9]]
        assert step.batch.step.slots.tolist() == [5 * 8 + 1, 6 * 8 + 2, 8 * 8 + 6, 8 * 8 + 7, 8, 9]
        decodes, prompts = step.batch.step.decodes, step.batch.step.prompts
        assert decodes is not None
        assert decodes.firsts.tolist() == [0, 1, 2]
        assert decodes.tables.tolist() == [[3, 5], [6, cache.padding_block]]
        assert prompts is not None
        assert (prompts.firsts.tolist(), prompts.starts.tolist()) == ([0, 4], [6])
        assert prompts.tables.tolist() == [[8, 1]]
    assert np.array_equal(step.input_ids.numpy(), np.ones((1, 6)))
