"""The compiled kernel for prompt attention: equal to plain torch, whatever the chunks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from millstream.model.cpu.kernels import Kernels, plain
from tests.model.native_cases import DTYPES, Case, make_case


@dataclass(frozen=True)
class Chunks:
    """Prompt chunks: the second half of a case's sequences, from `starts` on."""

    case: Case
    query: Tensor
    starts: Tensor

    @classmethod
    def of(cls, case: Case, starts: list[int]) -> Chunks:
        tokens = sum(int(case.positions[i]) + 1 - start for i, start in enumerate(starts))
        generator = torch.Generator().manual_seed(tokens)
        query = torch.randn(tokens, *case.query.shape[1:], generator=generator)
        return cls(case, query.to(case.query.dtype), torch.tensor(starts))

    @property
    def lengths(self) -> Tensor:
        return self.case.positions + 1 - self.starts

    def attend(self, kernels: Kernels, **options: Any) -> Tensor:
        case = self.case
        return kernels.paged_attention_prefill(
            *(self.query, case.keys, case.values, case.tables, self.starts, self.lengths),
            scale=options.pop("scale", self.query.shape[-1] ** -0.5),
            **options,
        )

    def part(self, number: int, start: int, end: int) -> Chunks:
        """Positions start to end of one of the sequences."""
        first = int(self.lengths[:number].sum()) - int(self.starts[number])
        row = self.case.rows(torch.tensor([number]))
        row = replace(row, positions=torch.tensor([end - 1]))
        return Chunks(row, self.query[first + start : first + end], torch.tensor([start]))


def assert_attends_chunks(chunks: Chunks, kernels: Kernels, **options: Any) -> None:
    got, case = chunks.attend(kernels, **options), chunks.case.wide()
    clean = replace(case, keys=case.keys.nan_to_num(), values=case.values.nan_to_num())
    truth = replace(chunks, case=clean, query=chunks.query.float()).attend(plain(), **options)
    assert got.dtype == chunks.query.dtype
    tolerance = 2e-5 if got.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(got.float(), truth, rtol=tolerance, atol=tolerance)


def test_the_meaning_of_prefill_is_that_of_decode() -> None:
    """The two functions in plain torch agree, so one truth holds for both kernels."""
    chunks = Chunks.of(make_case([40, 100]), [38, 100])
    case, options = chunks.case, {"window": 30, "sinks": torch.linspace(-1, 1, 9)}
    rows = replace(
        case.rows(torch.tensor([0, 0, 0, 1])),
        query=chunks.query,
        positions=torch.tensor([38, 39, 40, 100]),
    )
    clean = replace(case, keys=case.keys.nan_to_num(), values=case.values.nan_to_num())
    rows = replace(rows, keys=clean.keys, values=clean.values)
    got = replace(chunks, case=clean).attend(plain(), **options)
    torch.testing.assert_close(got, rows.attend(plain(), **options))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [(9, 3), (16, 8), (8, 1), (4, 4), (71, 1)])
@pytest.mark.parametrize("dims", [(64, 64), (80, 80), (128, 128), (256, 256), (64, 32), (20, 12)])
def test_prefill_shapes(
    kernels: Kernels, dtype: torch.dtype, heads: tuple[int, int], dims: tuple[int, int]
) -> None:
    case = make_case([0, 40, 150], heads=heads, dims=dims, dtype=dtype)
    assert_attends_chunks(Chunks.of(case, [0, 0, 64]), kernels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [8, 16, 24, 32])
def test_prefill_contexts(kernels: Kernels, dtype: torch.dtype, block_size: int) -> None:
    case = make_case([0, 1, 63, 64, 127, 128, 300, 1000], block_size=block_size, dtype=dtype)
    assert_attends_chunks(Chunks.of(case, [0, 0, 60, 64, 1, 128, 17, 700]), kernels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 17, 64, 300, 5000])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_prefill_windows(
    kernels: Kernels, dtype: torch.dtype, window: int, softcap: float | None
) -> None:
    chunks = Chunks.of(make_case([20, 299, 600], dtype=dtype), [0, 120, 500])
    assert_attends_chunks(chunks, kernels, window=window, softcap=softcap)


@pytest.mark.parametrize("dtype", DTYPES)
def test_prefill_sinks(kernels: Kernels, dtype: torch.dtype) -> None:
    chunks = Chunks.of(make_case([3, 300], dtype=dtype), [0, 100])
    sinks = torch.linspace(-3, 12, 9).to(dtype)
    assert_attends_chunks(chunks, kernels, sinks=sinks)
    assert_attends_chunks(chunks, kernels, sinks=sinks, softcap=3.0, window=100, scale=0.5)
    assert_attends_chunks(chunks, kernels, scale=20.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_prefill_does_not_depend_on_chunks(kernels: Kernels, dtype: torch.dtype) -> None:
    """Contract 2, bit for bit: whatever the chunks, the neighbours and the number of threads."""
    chunks = Chunks.of(make_case([90, 300, 700], dtype=dtype), [0, 0, 500])
    for options in ({}, {"window": 70}):
        together = chunks.attend(kernels, **options)
        pieces = [chunks.part(0, 0, 91).attend(kernels, **options)]
        for size, start, end in ((7, 0, 100), (64, 100, 301)):
            for begin in range(start, end, size):
                piece = chunks.part(1, begin, min(begin + size, end))
                pieces.append(piece.attend(kernels, **options))
        pieces.append(chunks.part(2, 500, 701).attend(kernels, **options))
        assert torch.equal(torch.cat(pieces), together)
        threads = torch.get_num_threads()
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                assert torch.equal(chunks.attend(kernels, **options), together)
        finally:
            torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_broken_chunk_breaks_no_other(kernels: Kernels, dtype: torch.dtype) -> None:
    """Contract 4: what one sequence left in a thread's buffers is not seen by the next."""
    chunks = Chunks.of(make_case([127, 40], dtype=dtype), [0, 0])
    whole = chunks.attend(kernels)
    chunks.case.values[chunks.case.tables[0]] = torch.nan
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        broken = chunks.attend(kernels)
    finally:
        torch.set_num_threads(threads)
    assert broken[:128].isnan().all()
    assert torch.equal(broken[128:], whole[128:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": torch.tensor([[99]])}, "does not exist"),
        ({"tables": torch.tensor([[-1]])}, "does not exist"),
        ({"positions": torch.tensor([16])}, "beyond its table"),
        ({"positions": torch.tensor([9])}, "the query 11"),
        ({"positions": torch.tensor([-1])}, "beyond its table"),
        ({"tables": torch.zeros(2, 1, dtype=torch.int64)}, "per chunk"),
    ],
)
def test_prefill_refuses(kernels: Kernels, change: dict[str, Any], message: str) -> None:
    chunks = Chunks.of(make_case([10]), [0])
    with pytest.raises(RuntimeError, match=message):
        replace(chunks, case=replace(chunks.case, **change)).attend(kernels)
