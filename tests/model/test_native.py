"""The compiled kernels: equal to plain torch, independent of neighbours, and never fatal."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from millstream.model.native import loader
from millstream.model.native.build import BuildError, build, cache_folder, find_compiler
from millstream.model.native.kernels import Kernels, plain
from millstream.model.native.loader import load
from millstream.model.native.self_test import differences

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    try:
        find_compiler()
    except BuildError:
        pytest.skip("this machine has no compiler")
    # The user's own cache: compiled once for all runs, not once a run.
    found = load()
    assert found is not None
    return found


@dataclass(frozen=True)
class Case:
    query: Tensor
    keys: Tensor
    values: Tensor
    tables: Tensor
    positions: Tensor

    def attend(self, kernels: Kernels, **options: Any) -> Tensor:
        return kernels.paged_attention_decode(
            self.query,
            self.keys,
            self.values,
            self.tables,
            self.positions,
            scale=options.pop("scale", self.query.shape[-1] ** -0.5),
            **options,
        )

    def rows(self, index: Tensor) -> Case:
        return replace(
            self,
            query=self.query[index],
            tables=self.tables[index],
            positions=self.positions[index],
        )

    def wide(self) -> Case:
        return replace(
            self, query=self.query.float(), keys=self.keys.float(), values=self.values.float()
        )


def make_case(
    positions: list[int],
    *,
    heads: tuple[int, int] = (9, 3),
    dims: tuple[int, int] = (64, 64),
    block_size: int = 16,
    dtype: torch.dtype = torch.float32,
) -> Case:
    """Blocks in random places; those that no row may read hold NaN, as does the padding."""
    generator = torch.Generator().manual_seed(len(positions) + sum(dims))
    counts = [position // block_size + 1 for position in positions]
    places = (torch.randperm(sum(counts), generator=generator) + 1).split(counts)
    tables = torch.zeros(len(positions), max(counts), dtype=torch.int64)
    for row, blocks in enumerate(places):
        tables[row, : len(blocks)] = blocks

    def cache(dim: int) -> Tensor:
        size = (sum(counts) + 1, block_size, heads[1], dim)
        made = torch.randn(size, generator=generator).to(dtype)
        made[0] = torch.nan
        for blocks, position in zip(places, positions, strict=True):
            made[blocks[-1], position % block_size + 1 :] = torch.nan
        return made

    query = torch.randn(len(positions), heads[0], dims[0], generator=generator).to(dtype)
    return Case(query, cache(dims[0]), cache(dims[1]), tables, torch.tensor(positions))


def assert_attends(case: Case, kernels: Kernels, **options: Any) -> None:
    got = case.attend(kernels, **options)
    clean = replace(case, keys=case.keys.nan_to_num(), values=case.values.nan_to_num())
    truth = clean.wide().attend(plain(), **options)
    assert got.dtype == case.query.dtype
    tolerance = 2e-5 if got.dtype == torch.float32 else 8e-3
    torch.testing.assert_close(got.float(), truth, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [(9, 3), (16, 8), (8, 1), (4, 4), (7, 1)])
@pytest.mark.parametrize("dims", [(64, 64), (80, 80), (128, 128), (256, 256), (64, 32), (20, 12)])
def test_attention_shapes(
    kernels: Kernels, dtype: torch.dtype, heads: tuple[int, int], dims: tuple[int, int]
) -> None:
    assert_attends(make_case([0, 40, 300], heads=heads, dims=dims, dtype=dtype), kernels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [8, 16, 24, 32])
def test_attention_contexts(kernels: Kernels, dtype: torch.dtype, block_size: int) -> None:
    positions = [0, 1, 15, 16, 63, 254, 255, 256, 257, 511, 512, 1000, 2999]
    assert_attends(make_case(positions, block_size=block_size, dtype=dtype), kernels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 17, 256, 300, 5000])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_attention_windows(
    kernels: Kernels, dtype: torch.dtype, window: int, softcap: float | None
) -> None:
    case = make_case([0, 20, 299, 1000], dtype=dtype)
    assert_attends(case, kernels, window=window, softcap=softcap)


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_sinks(kernels: Kernels, dtype: torch.dtype) -> None:
    case = make_case([3, 700], dtype=dtype)
    sinks = torch.linspace(-3, 12, 9).to(dtype)
    assert_attends(case, kernels, sinks=sinks)
    assert_attends(case, kernels, sinks=sinks, softcap=3.0, window=100, scale=0.5)


def test_attention_with_large_scores(kernels: Kernels) -> None:
    assert_attends(make_case([900]), kernels, scale=20.0)


def test_attention_takes_int32_tables_and_views(kernels: Kernels) -> None:
    case = make_case([100, 500])
    narrow = replace(
        case,
        tables=case.tables.int(),
        positions=case.positions.int(),
        query=case.query.transpose(0, 1).contiguous().transpose(0, 1),
    )
    assert torch.equal(narrow.attend(kernels), case.attend(kernels))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_its_neighbours(kernels: Kernels, dtype: torch.dtype) -> None:
    """Contract 2, bit for bit: alone, in any order, with any padding, on any number of threads."""
    case = make_case([5, 130, 255, 256, 700, 1500], dtype=dtype)
    together = case.attend(kernels)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    assert torch.equal(case.rows(order).attend(kernels), together[order])
    for row in range(6):
        alone = case.rows(torch.tensor([row]))
        needed = int(alone.positions) // 16 + 1
        short = replace(alone, tables=alone.tables[:, :needed])
        assert torch.equal(short.attend(kernels)[0], together[row])
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(case.attend(kernels), together)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": torch.tensor([[99]])}, "does not exist"),
        ({"tables": torch.tensor([[-1]])}, "does not exist"),
        ({"positions": torch.tensor([16])}, "beyond its table"),
        ({"positions": torch.tensor([-1])}, "beyond its table"),
        ({"positions": torch.tensor([0, 0])}, "per row"),
        ({"query": torch.zeros(1, 9, 64).half()}, "dtype"),
        ({"query": torch.zeros(1, 8, 64)}, "multiple"),
        ({"query": torch.zeros(1, 9, 32)}, "do not fit"),
    ],
)
def test_attention_refuses(kernels: Kernels, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        replace(make_case([10]), **change).attend(kernels)


def test_attention_refuses_options(kernels: Kernels) -> None:
    with pytest.raises(RuntimeError, match="sink"):
        make_case([10]).attend(kernels, sinks=torch.zeros(8))
    with pytest.raises(RuntimeError, match="window"):
        make_case([10]).attend(kernels, window=0)


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


def random(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def assert_rounds_alike(got: Tensor, truth: Tensor) -> None:
    """Nearly all equal; the rest one rounding step apart."""
    step = 2**-7 if got.dtype == torch.bfloat16 else 2**-20
    torch.testing.assert_close(got.float(), truth.float(), rtol=step, atol=1e-6)
    assert got.dtype == torch.float32 or (got == truth).float().mean() > 0.99


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("unit_offset", [False, True])
@pytest.mark.parametrize(("rows", "size"), [(1, 576), (5, 80), (3, 13), (300, 1024)])
def test_norms(
    kernels: Kernels, dtype: torch.dtype, unit_offset: bool, rows: int, size: int
) -> None:
    x, residual = random(rows, size, dtype=dtype), random(rows, 2 * size, dtype=dtype)[:, size:]
    weight = random(size, dtype=dtype)
    options = {"eps": 1e-5, "unit_offset": unit_offset}
    got = kernels.add_rms_norm(x, residual, weight, **options)
    for a, b in zip(got, plain().add_rms_norm(x, residual, weight, **options), strict=True):
        assert_rounds_alike(a, b)
    assert torch.equal(got[1], x + residual)
    single = kernels.rms_norm(x, weight, 1e-5, unit_offset=unit_offset)
    assert_rounds_alike(single, plain().rms_norm(x, weight, 1e-5, unit_offset=unit_offset))
    alone = kernels.rms_norm(x[-1:], weight, 1e-5, unit_offset=unit_offset)
    assert torch.equal(alone[0], single[-1])


def test_norm_of_heads_in_a_merged_projection(kernels: Kernels) -> None:
    merged, weight = random(4, 700, dtype=torch.bfloat16), random(64, dtype=torch.bfloat16)
    heads = merged[:, 60:].view(4, 10, 64)
    assert_rounds_alike(
        kernels.rms_norm(heads, weight, 1e-6), plain().rms_norm(heads, weight, 1e-6)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "size"), [(1, 1536), (5, 80), (3, 13), (100, 1536)])
def test_gated_activations(kernels: Kernels, dtype: torch.dtype, rows: int, size: int) -> None:
    merged = random(rows, 2 * size, dtype=dtype) * 4
    silu, gelu = kernels.silu_mul(merged), kernels.gelu_tanh_mul(merged)
    assert_rounds_alike(silu, plain().silu_mul(merged))
    # In double: torch's float gelu loses digits where 1 + tanh(x) cancels.
    truth = plain().gelu_tanh_mul(merged.double()).float()
    step = 2**-7 if dtype == torch.bfloat16 else 2**-19
    torch.testing.assert_close(gelu.float(), truth, rtol=step, atol=1e-6)
    assert torch.equal(kernels.silu_mul(merged[-1:])[0], silu[-1])
    assert torch.equal(kernels.gelu_tanh_mul(merged[-1:])[0], gelu[-1])


def test_activations_of_extreme_gates(kernels: Kernels) -> None:
    gates = torch.tensor([-1e4, -100.0, -88.0, -0.0, 0.0, 88.0, 100.0, 1e4, torch.nan])
    merged = torch.cat([gates, torch.ones(9)]).unsqueeze(0)
    for name in ("silu_mul", "gelu_tanh_mul"):
        truth = getattr(plain(), name)(merged)
        got = getattr(kernels, name)(merged)
        torch.testing.assert_close(got, truth, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("dim", "turned", "value_dim"), [(64, 64, 64), (80, 32, 16), (20, 20, 20)])
@pytest.mark.parametrize("tokens", [1, 7, 200])
def test_rotary_to_cache(
    kernels: Kernels, dtype: torch.dtype, dim: int, turned: int, value_dim: int, tokens: int
) -> None:
    merged = random(tokens, (6 + 2) * dim + 2 * value_dim, dtype=dtype)
    query, key = merged[:, : 6 * dim].view(tokens, 6, dim), merged[:, 6 * dim : 8 * dim]
    value = merged[:, 8 * dim :].view(tokens, 2, value_dim)
    slots = torch.randperm(30 * 8, generator=torch.Generator().manual_seed(2))[:tokens]

    def run(which: Kernels) -> tuple[Tensor, ...]:
        caches = torch.zeros(30, 8, 2, dim, dtype=dtype), torch.ones(30, 8, 2, value_dim).to(dtype)
        turned_pair = which.rotary_to_cache(
            query,
            key.view(tokens, 2, dim),
            value,
            cos=random(tokens, turned, dtype=dtype),
            sin=random(tokens, turned, dtype=dtype).flip(0),
            slots=slots,
            key_cache=caches[0],
            value_cache=caches[1],
        )
        return *turned_pair, *caches

    for got, truth in zip(run(kernels), run(plain()), strict=True):
        # Rounded product by product, so bfloat16 is exact; float may fuse a product and a sum.
        torch.testing.assert_close(got, truth, rtol=0, atol=0 if dtype == torch.bfloat16 else 1e-6)


def test_rotary_refuses_slots_that_do_not_exist(kernels: Kernels) -> None:
    x, cache = torch.zeros(1, 2, 8), torch.zeros(3, 4, 2, 8)
    angles = torch.zeros(1, 8)
    for slot in (-1, 12):
        with pytest.raises(RuntimeError, match="does not exist"):
            kernels.rotary_to_cache(
                *(x, x, x),
                cos=angles,
                sin=angles,
                slots=torch.tensor([slot]),
                key_cache=cache,
                value_cache=cache.clone(),
            )


def test_self_test_names_what_is_wrong(kernels: Kernels) -> None:
    assert differences(kernels, plain()) == []
    wrong = replace(kernels, silu_mul=lambda merged: plain().silu_mul(merged) * 1.1)
    assert {name.split()[0] for name in differences(wrong, plain())} == {"silu"}


class FakeCompiler:
    """Stands in for the real one: writes `content`, counts its calls."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, content: str) -> None:
        self._calls = folder / "calls"
        script = folder / "fake-c++"
        script.write_text(
            "#!/bin/sh\n"
            'if [ "$1" = --version ]; then echo fake 1.0; exit; fi\n'
            f"echo call >> '{self._calls}'\n"
            f'for word; do [ "$last" = -o ] && {content} > "$word"; last=$word; done\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("CXX", str(script))

    @property
    def num_calls(self) -> int:
        return len(self._calls.read_text().splitlines())


def test_builds_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = FakeCompiler(tmp_path, monkeypatch, content="echo library")
    first = build(tmp_path / "cache")
    assert build(tmp_path / "cache") == first
    assert first.read_text() == "library\n"
    assert compiler.num_calls == 1


def test_two_starts_at_once_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = FakeCompiler(tmp_path, monkeypatch, content="echo library")
    threads = [threading.Thread(target=build, args=(tmp_path / "cache",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiler.num_calls == 1


def test_a_damaged_library_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = FakeCompiler(tmp_path, monkeypatch, content="echo library")
    library = build(tmp_path / "cache")
    library.write_text("lib")
    assert build(tmp_path / "cache").read_text() == "library\n"
    assert compiler.num_calls == 2


def assert_falls_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    monkeypatch.setattr(loader, "_is_loaded", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert load(folder) is None
    assert len(caplog.messages) == 1
    assert "plain torch is used" in caplog.text
    assert why in caplog.text


def test_without_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_falls_back(tmp_path / "cache", monkeypatch, caplog, "no C++ compiler")


def test_with_a_compiler_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FakeCompiler(tmp_path, monkeypatch, content="{ echo no such instruction >&2; exit 3; }")
    assert_falls_back(tmp_path / "cache", monkeypatch, caplog, "no such instruction")


def test_with_a_library_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FakeCompiler(tmp_path, monkeypatch, content="echo rubbish")
    assert_falls_back(tmp_path / "cache", monkeypatch, caplog, "Could not load")


def test_with_a_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FakeCompiler(tmp_path, monkeypatch, content="echo library")
    (tmp_path / "file").touch()
    assert_falls_back(tmp_path / "file" / "cache", monkeypatch, caplog, "Not a directory")


def test_a_folder_that_others_can_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeCompiler(tmp_path, monkeypatch, content="echo library")
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(BuildError, match="others can write"):
        build(folder)
    folder.chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(BuildError, match="others can write"):
        build(folder)


def test_wrong_kernels_are_not_used(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loader, "differences", lambda *_: ["silu 64"])
    with caplog.at_level(logging.WARNING):
        assert load() is None
    assert "silu 64" in caplog.text


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "millstream" / "native"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/millstream/native")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/extensions")
    assert cache_folder() == Path("/extensions/millstream/native")


@dataclass(frozen=True)
class Product:
    """Rows, a weight and what `int8_linear` wants beside it."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    packed: Tensor

    @classmethod
    def of(
        cls, kernels: Kernels, shape: tuple[int, int, int], dtype: torch.dtype, *, has_bias: bool
    ) -> Product:
        """shape: rows, inputs, outputs. dtype: of the weight; int8 goes with rows of bfloat16."""
        rows, inputs, outputs = shape
        generator = torch.Generator().manual_seed(sum(shape))
        weight = torch.randn(outputs, inputs, generator=generator)
        weight = (
            (weight * 40).clamp(-127, 127).to(dtype) if dtype == torch.int8 else weight.to(dtype)
        )
        x = torch.randn(rows, inputs, generator=generator).bfloat16()
        bias = torch.randn(outputs, generator=generator).bfloat16() if has_bias else None
        return cls(x, weight, bias, kernels.pack_weight(weight))

    def rows(self, index: slice) -> Product:
        return replace(self, x=self.x[index])

    def compute(self, kernels: Kernels) -> Tensor:
        outputs = len(self.weight)
        if self.weight.dtype != torch.int8:
            return kernels.packed_linear(self.x, self.packed, outputs, self.bias)
        sums = self.weight.sum(1, dtype=torch.int32)
        scales = torch.linspace(1e-3, 2e-3, outputs)
        return kernels.int8_linear(self.x, self.packed, sums, scales, self.bias)


WEIGHTS = [torch.bfloat16, torch.int8]
PRODUCTS = [
    (1, 64, 64),
    (2, 37, 50),
    (5, 130, 65),
    (6, 64, 16),
    (7, 65, 1),
    (49, 64, 130),
    (100, 300, 70),
]


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", PRODUCTS)
def test_products(
    kernels: Kernels, dtype: torch.dtype, has_bias: bool, shape: tuple[int, int, int]
) -> None:
    product = Product.of(kernels, shape, dtype, has_bias=has_bias)
    assert torch.equal(product.packed, plain().pack_weight(product.weight))
    got, truth = product.compute(kernels), product.compute(plain())
    torch.testing.assert_close(got, truth, rtol=2**-7, atol=1e-3)
    assert (got == truth).float().mean() > 0.98


def test_the_meaning_of_products() -> None:
    """In plain torch: a packed weight is the weight, rounded rows are nearly the rows."""
    product = Product.of(plain(), (9, 100, 70), torch.bfloat16, has_bias=True)
    truth = torch.nn.functional.linear(product.x, product.weight, product.bias)
    torch.testing.assert_close(product.compute(plain()), truth)
    product = Product.of(plain(), (9, 100, 70), torch.int8, has_bias=False)
    scales = torch.linspace(1e-3, 2e-3, 70)
    truth = product.x.float() @ (product.weight.float() * scales.unsqueeze(1)).t()
    error = product.compute(plain()).float() - truth
    assert error.norm() < 0.01 * truth.norm()


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize(
    "inputs", [70, 6000]
)  # a block that stays in a core's cache, one that does not
def test_a_product_depends_on_its_row_only(
    kernels: Kernels, dtype: torch.dtype, inputs: int
) -> None:
    """Contract 2, bit for bit: alone, among any number of rows, on any number of threads."""
    product = Product.of(kernels, (101, inputs, 200), dtype, has_bias=True)
    together = product.compute(kernels)
    torch.testing.assert_close(together, product.compute(plain()), rtol=2**-6, atol=1e-2)
    for first, last in ((0, 1), (0, 2), (3, 8), (50, 56), (7, 67), (100, 101)):
        part = slice(first, last)
        assert torch.equal(product.rows(part).compute(kernels), together[part])
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(product.compute(kernels), together)
    finally:
        torch.set_num_threads(threads)


def test_int8_rows_of_zeros_and_of_large_numbers(kernels: Kernels) -> None:
    product = Product.of(kernels, (3, 64, 64), torch.int8, has_bias=False)
    product.x[0] = 0
    product.x[1] *= 1e20
    got = product.compute(kernels)
    assert torch.equal(got[0], torch.zeros(64, dtype=torch.bfloat16))
    torch.testing.assert_close(got, product.compute(plain()), rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so_and_stays_alone(
    kernels: Kernels, dtype: torch.dtype, number: float
) -> None:
    """Contract 4: or an answer would go on as if nothing had happened."""
    product = Product.of(kernels, (3, 70, 64), dtype, has_bias=False)
    whole = product.compute(kernels)
    product.x[1, 69] = number
    got = product.compute(kernels)
    assert not got[1].isfinite().any()
    assert torch.equal(got[::2], whole[::2])


@pytest.mark.parametrize("dtype", WEIGHTS)
def test_products_refuse(kernels: Kernels, dtype: torch.dtype) -> None:
    product = Product.of(kernels, (3, 64, 70), dtype, has_bias=True)
    for change, message in (
        ({"x": product.x[:, :60].contiguous()}, "do not fit"),
        ({"weight": product.weight[:64]}, "fit"),
        ({"bias": torch.zeros(69).bfloat16()}, "fit"),
        ({"packed": product.packed[:, :, :32].contiguous()}, "not a packed weight"),
    ):
        with pytest.raises(RuntimeError, match=message):
            replace(product, **change).compute(kernels)
    with pytest.raises(RuntimeError, match="dtype"):
        kernels.pack_weight(torch.zeros(2, 2).half())
