"""Steps with prompts filled up to one of a few sizes: which these are, where their arrays go."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from millstream.core.plan import Chunk, Plan
from millstream.core.request import Request, SamplingParams
from millstream.model.cuda.prompt_sizes import StepSize, size_of, step_sizes
from millstream.model.cuda.prompt_staging import fill_up, stage_step
from millstream.model.cuda.staging import Staging
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.layout import Layout
from millstream.model.paging.packer import Packer
from millstream.model.paging.step import HostSpan
from tests.model.architectures import VOCAB
from tests.model.cuda.test_cuda import CPU

GREEDY = SamplingParams(temperature=0.0)


def make_chunk(
    number: int, *, start: int, length: int, is_last: bool = True, score_from: int | None = None
) -> Chunk:
    """Of a request whose blocks nobody else has, and whose prompt goes on behind the chunk."""
    history = [(number * 31 + i * 7) % (VOCAB - 1) + 1 for i in range(start + length)]
    request = Request(id=number, prompt=(*history, 1), sampling=GREEDY, max_tokens=9)
    table = list(range(number * 8, number * 8 + 8))
    tokens = history[start:]
    return Chunk(request, tokens, start, table, history, is_last, score_from=score_from)


def decodes(*starts: int) -> list[Chunk]:
    return [make_chunk(i, start=start, length=1) for i, start in enumerate(starts, 1)]


def test_sizes_are_few_and_hold_what_is_usual() -> None:
    sizes = step_sizes(max_rows=64, max_tokens=4096)
    assert len(sizes) == 27
    assert sizes == sorted(sizes, key=lambda size: (size.tokens, size.decodes))
    assert StepSize(64, 128, 8) in sizes
    assert sizes[-1] == StepSize(64, 1024, 32)
    assert len(step_sizes(max_rows=10_000, max_tokens=10_000)) == 45
    assert step_sizes(max_rows=64, max_tokens=31) == []
    for max_rows in (1, 3, 6, 16, 40, 300):
        for max_tokens in (32, 100, 1024):
            for size in step_sizes(max_rows=max_rows, max_tokens=max_tokens):
                assert size.decodes <= min(max_rows, 256)
                assert size.tokens <= max_tokens
                assert 1 <= size.chunks <= max_rows


def test_chunks_of_one_token_at_the_beginning_are_decode_rows() -> None:
    prompts = [make_chunk(4, start=0, length=3), make_chunk(5, start=9, length=1)]
    assert size_of(Plan((*decodes(4, 9), *prompts))) == StepSize(2, 4, 2)
    assert size_of(Plan(tuple(decodes(4)))) == StepSize(1, 0, 0)
    assert size_of(Plan(tuple(prompts))) == StepSize(0, 4, 2)


def test_a_span_is_filled_up_by_a_chunk_for_nobody() -> None:
    tables = np.arange(4, dtype=np.int32).reshape(2, 2)
    host = HostSpan.of_chunks(tables, np.array([0, 7]), np.array([3, 5]))
    filled = fill_up(host, tokens=16, chunks=4)
    assert filled.starts.tolist() == [0, 7, -16, -16, -16]
    assert filled.firsts.tolist() == [0, 3, 8, 16, 16, 16]
    assert filled.ends.tolist() == [3, 12, -8, -16, -16]
    assert filled.tables is tables
    assert fill_up(host, tokens=8, chunks=2).firsts.tolist() == [0, 3, 8, 8]
    assert fill_up(None, tokens=8, chunks=1).firsts.tolist() == [0, 8, 8]


def test_a_step_is_filled_up_at_two_places() -> None:
    """Behind the decode rows, and behind the prompts."""
    cache = KVCache({}, num_blocks=40, block_size=8, dtype=torch.float32, device=CPU)
    prompts = [make_chunk(3, start=8, length=3), make_chunk(4, start=0, length=2, is_last=False)]
    layout = Packer(cache).lay_out(Plan((*decodes(5, 9), *prompts)))
    staged = stage_step(
        layout,
        StepSize(4, 8, 3),
        cache=cache,
        staging=Staging(CPU, 2000),
        sources=np.array([1, -1]),
    )
    spare = cache.spare_block * 8
    assert staged.positions.tolist() == [5, 9, 0, 0, 8, 9, 10, 0, 1, 0, 0, 0]
    assert staged.slots.tolist() == [
        *(8 * 8 + 5, 17 * 8 + 1, spare, spare),
        *(25 * 8, 25 * 8 + 1, 25 * 8 + 2, 32 * 8, 32 * 8 + 1, spare, spare, spare),
    ]
    assert staged.token_ids[[0, 1]].tolist() == layout.token_ids[:2].tolist()
    assert staged.token_ids[4:9].tolist() == layout.token_ids[2:].tolist()
    assert staged.sources.tolist() == [1, -1, -1, -1]
    assert staged.wanted.tolist() == [0, 1, 6, 0, 0, 0, 0]
    assert staged.decode_ends.tolist() == [6, 10, 1, 1]
    assert staged.decode_tables[2:].unique().tolist() == [cache.padding_block]
    assert staged.prompt_tables.tolist() == [[24, 25], [32, 33]]


@pytest.mark.parametrize("max_rows", [1, 6, 64])
@pytest.mark.parametrize("max_tokens", [32, 100, 1024])
def test_the_largest_step_of_each_size_is_staged_in_one_place(
    max_rows: int, max_tokens: int
) -> None:
    """As wide as the longest sequence; the memory is made for what the engine itself computes."""
    max_blocks = 512
    cache = KVCache({}, num_blocks=8, block_size=4, dtype=torch.float32, device=CPU)
    staging = Staging.for_steps(
        CPU, max_tokens=max_tokens, max_rows=max_rows, max_blocks=max_blocks
    )
    packer = Packer(cache)
    for size in step_sizes(max_rows=max_rows, max_tokens=max_tokens):
        layouts: list[Layout | None] = [None]
        for num_decodes in {0, min(1, size.decodes), size.decodes}:
            count = max(min(size.chunks, max_rows - num_decodes), 1)
            chunks = [make_chunk(i, start=9, length=1) for i in range(num_decodes)]
            chunks += [
                make_chunk(90 + i, start=0, length=size.tokens // count) for i in range(count)
            ]
            table, end = list(range(max_blocks)), max_blocks * 4
            wide = [c._replace(block_table=table, start=end - len(c.tokens)) for c in chunks]
            layouts.append(packer.lay_out(Plan(tuple(wide))))
        places = set()
        for layout in layouts:
            staged = stage_step(layout, size, cache=cache, staging=staging)
            fixed = [getattr(staged, name) for name in (
                "token_ids", "positions", "slots", "wanted", "decode_ends", "starts", "ends",
                "firsts",
            )]  # fmt: skip
            places.add(tuple((one.data_ptr(), one.shape) for one in fixed))
            assert all(one.data_ptr() % 16 == staged.token_ids.data_ptr() % 16 for one in fixed)
        assert len(places) == 1
