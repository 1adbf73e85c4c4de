"""The compiled kernels with states: equal to plain torch, however the rows of a text are cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from millstream.model.cpu.kernels import Kernels, plain
from millstream.model.tolerance import is_close
from tests.model.native_cases import DTYPES

SLOTS = 6
KEY_HEADS, HEADS = 2, 4


class Moves(NamedTuple):
    """Sequences of a batch: rows of each, the slots they are read from and written to."""

    lengths: Sequence[int]
    sources: Sequence[int]
    targets: Sequence[int]

    @property
    def tensors(self) -> dict[str, Tensor]:
        firsts = torch.tensor([0, *self.lengths]).cumsum(0)
        return {
            "sources": torch.tensor(self.sources),
            "targets": torch.tensor(self.targets),
            "firsts": firsts.to(torch.int32),
        }


MIXED = [
    Moves([1], [-1], [3]),
    Moves([1, 1, 1], [0, 4, 2], [0, 4, 2]),
    Moves([1, 200, 0, 2, 33], [5, -1, 2, 1, 0], [5, 3, 2, 4, 0]),
    # The second goes on from the first, the fourth writes what the third reads.
    Moves([7, 9, 4, 5], [-1, 1, 2, -1], [1, 3, 0, 2]),
]


class Convolution:
    """Random inputs of a convolution for so many rows."""

    def __init__(
        self,
        rows: int,
        dtype: torch.dtype,
        *,
        sizes: tuple[int, int, int] = (300, 4, 4),
        bias: bool = True,
    ) -> None:
        random = _random(rows, dtype)
        channels, width, kept = sizes
        self.x = random(rows, channels + 3)[:, 1 : channels + 1]
        self.weight = random(channels, width)
        self.bias = random(channels) if bias else None
        self.states = random(SLOTS, channels, kept)

    def run(self, kernels: Kernels, moves: Moves, states: Tensor, *, first: int = 0) -> Tensor:
        rows = slice(first, first + sum(moves.lengths))
        return kernels.short_convolution(
            self.x[rows], self.weight, self.bias, states=states, silu=True, **moves.tensors
        )


class Delta:
    """Random inputs of the gated delta rule for so many rows."""

    def __init__(
        self,
        rows: int,
        dtype: torch.dtype,
        *,
        dims: tuple[int, int] = (64, 40),
        by_channel: bool = False,
        wide_beta: bool = False,
    ) -> None:
        random = _random(rows, dtype)
        dim, value_dim = dims
        merged = random(rows, 2 * KEY_HEADS * dim + HEADS * value_dim)
        sizes = [KEY_HEADS * dim, KEY_HEADS * dim, HEADS * value_dim]
        query, key, value = merged.split(sizes, dim=1)
        self.query, self.key = (x.unflatten(1, (KEY_HEADS, dim)) for x in (query, key))
        self.value = value.unflatten(1, (HEADS, value_dim))
        self.g = -random(rows, HEADS, *((dim,) if by_channel else ())).float().abs()
        self.beta = random(rows, HEADS).sigmoid()
        self.beta = self.beta.float() if wide_beta else self.beta
        self.states = random(SLOTS, HEADS, dim, value_dim).float()

    def run(self, kernels: Kernels, moves: Moves, states: Tensor, *, first: int = 0) -> Tensor:
        rows = slice(first, first + sum(moves.lengths))
        return kernels.gated_delta_rule(
            self.query[rows],
            self.key[rows],
            self.value[rows],
            g=self.g[rows],
            beta=self.beta[rows],
            states=states,
            normalise=True,
            **moves.tensors,
        )


class _random:
    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self._generator, self._dtype = torch.Generator().manual_seed(seed), dtype

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self._dtype)


@contextmanager
def threads(kernels: Kernels, count: int) -> Iterator[None]:
    """Inside, kernels run on so many threads of their own."""
    kernels.use_threads(count)
    try:
        yield
    finally:
        kernels.use_threads(-1)


CASES = {
    "convolution": Convolution,
    "convolution, odd sizes": partial(Convolution, sizes=(13, 3, 5), bias=False),
    "convolution, two": partial(Convolution, sizes=(257, 2, 1)),
    "delta": Delta,
    "delta, odd sizes": partial(Delta, dims=(13, 7), wide_beta=True),
    "delta, wide": partial(Delta, dims=(128, 128)),
    "delta, by channel": partial(Delta, by_channel=True),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_equals_plain_torch(kernels: Kernels, name: str, dtype: torch.dtype) -> None:
    for moves in MIXED:
        case = CASES[name](sum(moves.lengths), dtype)
        states, truth_states = case.states.clone(), case.states.clone()
        got = case.run(kernels, moves, states)
        truth = case.run(plain(), moves, truth_states)
        assert is_close(got, truth)
        torch.testing.assert_close(states, truth_states, rtol=1e-3, atol=1e-4)
        untouched = [slot for slot in range(SLOTS) if slot not in moves.targets]
        assert torch.equal(states[untouched], case.states[untouched])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_the_bits_do_not_depend_on_the_cut(kernels: Kernels, name: str, dtype: torch.dtype) -> None:
    rows = 60
    case = CASES[name](rows, dtype)
    whole_states = case.states.clone()
    whole = case.run(kernels, Moves([rows], [-1], [2]), whole_states)
    for lengths in ([1, 59], [30, 30], [58, 2], [2, 1, 7, 50], [1] * rows):
        states, parts, first = case.states.clone(), [], 0
        for part, length in enumerate(lengths):  # back and forth between two slots
            source = -1 if first == 0 else 1 + (part - 1) % 2
            moves = Moves([length], [source], [1 + part % 2])
            parts.append(case.run(kernels, moves, states, first=first))
            first += length
        assert torch.equal(torch.cat(parts), whole)
        assert torch.equal(states[1 + (len(lengths) - 1) % 2], whole_states[2])
        # All parts in one call, each going on from the one before.
        count = len(lengths)
        states = case.states.clone()
        moves = Moves(lengths, [-1, *[3] * (count - 1)], [3] * count)
        with threads(kernels, 4):
            assert torch.equal(case.run(kernels, moves, states), whole)
        assert torch.equal(states[3], whole_states[2])


@pytest.mark.parametrize("name", CASES)
def test_a_sequence_does_not_see_others(kernels: Kernels, name: str) -> None:
    moves = Moves([1, 20, 3], [0, -1, 1], [0, 2, 1])
    case = CASES[name](24, torch.bfloat16)
    states = case.states.clone()
    truth = case.run(kernels, moves, states)
    spoilt = case.states.clone()
    spoilt[[1, 2, 3, 4, 5]] = torch.nan  # the second begins: what its slot held does not matter
    got = case.run(kernels, moves, spoilt)
    assert torch.equal(got[:21], truth[:21])
    assert torch.equal(spoilt[[0, 2]], states[[0, 2]])
    assert got[21:].isnan().any()


def test_what_does_not_fit_is_refused(kernels: Kernels) -> None:
    for case in (Convolution(5, torch.float32), Delta(5, torch.float32)):
        for moves in (
            Moves([5], [SLOTS], [0]),
            Moves([5], [-2], [0]),
            Moves([5], [0], [-1]),
            Moves([6, -1], [0, 1], [0, 1]),
        ):
            with pytest.raises(RuntimeError, match=r"no such|overlap"):
                case.run(kernels, moves, case.states)
        with pytest.raises(RuntimeError, match="contiguous"):
            case.run(kernels, Moves([5], [0], [0]), case.states.mT.contiguous().mT)
    with pytest.raises(RuntimeError, match="too few"):
        Convolution(5, torch.float32, sizes=(8, 4, 2)).run(
            kernels, Moves([5], [0], [0]), torch.zeros(SLOTS, 8, 2)
        )
