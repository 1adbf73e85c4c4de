"""A plan as arrays: steps of single tokens take a shorter way to the same arrays."""

from __future__ import annotations

import numpy as np
import pytest

from millstream.core.plan import Chunk, Plan
from millstream.model.paging.block_tables import BlockTables
from millstream.model.paging.layout import Layout, lay_out
from tests.model.test_architectures import greedy_request

BLOCK_SIZE = 4


def chunk(number: int, known: int, start: int) -> Chunk:
    """Tokens start .. known - 1 of a sequence with a prompt of 5."""
    tokens = [100 * number + i for i in range(known)]
    table = [10 * number + i for i in range(-(-known // BLOCK_SIZE))]
    request = greedy_request(number, tuple(tokens[:5]), 50)
    return Chunk(request, tuple(tokens[start:]), start, table, tokens, is_last=True)


def laid_out(*chunks: Chunk) -> Layout:
    return lay_out(Plan(chunks), BlockTables(99), BLOCK_SIZE)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_single_tokens_lie_as_they_do_beside_a_prompt(count: int) -> None:
    decodes = [chunk(number, 5 + 3 * number, 4 + 3 * number) for number in range(1, count + 1)]
    alone, beside = laid_out(*decodes), laid_out(*decodes, chunk(20, 5, 0))
    assert alone.prompts is None
    assert alone.decodes is not None
    assert beside.decodes is not None
    assert len(alone.decodes.starts) == len(beside.decodes.starts) == count
    for name in ("token_ids", "positions", "slots", "wanted"):
        got, truth = getattr(alone, name), getattr(beside, name)
        assert got.dtype == truth.dtype == np.int64
        assert np.array_equal(got, truth[:count]), name
    for name in ("tables", "starts", "ends", "firsts"):
        got, truth = getattr(alone.decodes, name), getattr(beside.decodes, name)
        assert got.dtype == truth.dtype == (np.int64 if name == "starts" else np.int32)
        assert np.array_equal(got, truth), name
    for name in ("longest", "longest_context"):
        assert getattr(alone.decodes, name) == getattr(beside.decodes, name)
    assert alone.decodes.lengths.tolist() == [1] * count
    assert alone.token_ids[0] == 107
    assert alone.slots[0] == 11 * BLOCK_SIZE + 3


def test_a_prompt_chunk_of_one_token_that_is_not_its_last_has_no_logits() -> None:
    part = chunk(2, 5, 4)._replace(is_last=False)
    found = laid_out(chunk(1, 8, 7), part)
    assert found.token_ids.tolist() == [107, 204]
    assert found.wanted.tolist() == [0]


def test_positions_that_are_scored_come_after_those_that_are_sampled() -> None:
    found = laid_out(chunk(1, 8, 7)._replace(score_from=0), chunk(2, 5, 0)._replace(score_from=0))
    assert found.wanted.tolist() == [0, 5, 1, 2, 3, 4]
