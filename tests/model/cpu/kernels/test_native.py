"""The small compiled kernels: equal to plain torch; and their build, which is never fatal."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from torch import Tensor

from millstream.model.cpu.kernels import Kernels, loader, plain
from millstream.model.cpu.kernels import compilation as build_module
from millstream.model.cpu.kernels.compilation import BuildError, build
from millstream.model.cpu.kernels.kernel_check import differences
from millstream.model.cpu.kernels.loader import load
from millstream.model.sampling.sampler import best_tokens
from tests.model.native_cases import DTYPES


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 15, 16, 17, 1024, 1025, 3000, 32000])
def test_best_tokens(kernels: Kernels, dtype: torch.dtype, size: int) -> None:
    rows = random(40, 2 * size, dtype=dtype)[:, size:]
    generator = torch.Generator().manual_seed(size)
    for row, value in enumerate([torch.nan, torch.inf, -torch.inf, 9.0, 9.0, torch.nan], 20):
        rows[row, torch.randint(size, (3,), generator=generator)] = value
    rows[30] = -torch.inf
    rows[31] = -torch.inf
    rows[31, -1] = -5.0
    rows[32] = 2.0  # all the same: the first
    rows[33] = 0.0
    rows[33, 0] = -0.0
    rows[34, -1] = torch.nan
    rows[35] = torch.nan
    found = kernels.best_tokens(rows)
    assert torch.equal(found, plain().best_tokens(rows))
    assert torch.equal(found, best_tokens(rows))
    assert found[[20, 21, 30, 34, 35]].tolist() == [-1] * 5
    assert found[[31, 32, 33]].tolist() == [size - 1, 0, 0]
    assert len(set(found.tolist())) > min(size, 10)


def test_best_tokens_of_no_rows_and_of_nothing(kernels: Kernels) -> None:
    assert kernels.best_tokens(torch.empty(0, 5)).shape == (0,)
    with pytest.raises(RuntimeError, match="rows expected"):
        kernels.best_tokens(torch.empty(2, 0))


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


def test_the_digest_covers_every_source() -> None:
    """Or a changed header would not be compiled."""
    folder = Path(str(files("millstream.model.cpu.kernels")))
    sources = {path.name for path in folder.iterdir() if path.suffix in (".h", ".cpp")}
    assert {build_module.SOURCE, *build_module.HEADERS} == sources
    included = {
        line.split('"')[1]
        for name in sources
        for line in (folder / name).read_text().splitlines()
        if line.startswith('#include "')
    }
    assert included == set(build_module.HEADERS)


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


def test_a_build_that_was_killed_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    FakeCompiler(tmp_path, monkeypatch, content="exit 3")
    with pytest.raises(BuildError):
        build(folder)
    (lock,) = folder.iterdir()
    scratch = lock.with_suffix(".building")
    scratch.mkdir()
    (scratch / "half").touch()
    FakeCompiler(tmp_path, monkeypatch, content="echo $TMPDIR")
    assert build(folder).read_text() == f"{scratch}\n", "the compiler's own files are there, too"
    assert sorted(file.suffix for file in folder.iterdir()) == [".lock", ".sha256", ".so"]


def assert_falls_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    monkeypatch.setattr(loader, "is_loaded", lambda: False)
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
