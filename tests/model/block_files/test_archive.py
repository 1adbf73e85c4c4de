"""Blocks of a real model on disk: the same bits as in memory, and behind the steps."""

from __future__ import annotations

import errno
import logging
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from millstream.core.archive import BlockArchive, Piece
from millstream.core.blocks import BlockPool
from millstream.core.plan import StepOutput
from millstream.core.request import Request
from millstream.core.scheduler import Scheduler
from millstream.errors import StartupError
from millstream.model.block_files import reader, writer
from millstream.model.block_files.archive import FileArchive
from millstream.model.block_files.folder import BlockFolder, prepare_folder
from millstream.model.block_files.memory import is_finite
from millstream.model.paging.block_copies import BlockCopies
from millstream.model.paging.kv_cache import KVCache, LayerShape
from millstream.model.runner import ModelRunner
from tests.model.architectures import make_model
from tests.model.test_architectures import greedy_request, make_runner, random_prompts

BLOCKS = 12
HISTORY = random_prompts(1, seed=3, longest=400)[0] * 2
WAIT_SECONDS = 30.0


def name(number: int) -> bytes:
    """The hash of a test's block."""
    return bytes([number]) * 16


@dataclass
class Made:
    """An archive over a small cache whose block i holds i + 1 everywhere."""

    folder: Path
    dtype: torch.dtype = torch.bfloat16
    now: float = 100.0
    cache: KVCache = field(init=False)
    archive: FileArchive = field(init=False)

    def __post_init__(self) -> None:
        shapes = {0: LayerShape(2, 8, 4), 3: LayerShape(1, 4, 4)}
        self.cache = KVCache(
            shapes, num_blocks=BLOCKS, block_size=8, dtype=self.dtype, device=torch.device("cpu")
        )
        for tensor in self.tensors:
            for block in range(BLOCKS):
                tensor[block] = block + 1
        self.copies = BlockCopies(self.cache)
        self.files = BlockFolder(prepare_folder(self.folder), fingerprint=b"f" * 16, limit=2**30)
        self.archive = FileArchive(self.copies, self.files, clock=lambda: self.now)

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.cache.keys.values(), *self.cache.values.values()]

    def wait_written(self) -> None:
        wait_written(self.archive)

    def arrivals(self, count: int = 1) -> list[Piece]:
        """The next pieces, at least so many, or up to the last of a fetch."""
        pieces: list[Piece] = []
        for _ in range(int(WAIT_SECONDS / 0.01)):
            pieces += self.archive.take_arrived()
            if len(pieces) >= count:
                return pieces
            self.archive.wait(0.01)
        raise AssertionError("nothing arrives")


def wait_written(archive: BlockArchive) -> None:
    for _ in range(int(WAIT_SECONDS / 0.01)):
        if not archive.is_writing:
            return
        archive.wait(0.01)
    raise AssertionError("not written in time")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path)
    yield made
    made.archive.close(seconds=WAIT_SECONDS)


def test_blocks_come_back_where_they_are_wanted(made: Made) -> None:
    made.archive.save([2, 5, 7], [name(2), name(5), name(7)])
    for tensor in made.tensors:
        tensor[:] = 0  # copied already
    made.wait_written()
    made.archive.fetch(1, [name(5), name(7)])
    piece = made.arrivals()[0]
    assert (piece.request_id, list(piece.hashes), piece.is_last) == (1, [name(5), name(7)], True)
    made.archive.restore(piece, [9, 0])
    for tensor in made.tensors:
        values = [set(tensor[block].flatten().tolist()) for block in range(BLOCKS)]
        assert values == [{8.0}] + [{0.0}] * 8 + [{6.0}] + [{0.0}] * 2
    statistics = made.archive.statistics(num_lost=4)
    assert (statistics.num_written, statistics.num_read, statistics.num_skipped) == (3, 2, 4)
    assert statistics.bytes_read == 2 * made.copies.block_bytes == 2 * 8 * (2 * 12 + 8) * 2


def test_a_fetch_ends_where_a_block_is_gone(made: Made) -> None:
    made.archive.save([1, 2], [name(1), name(2)])
    made.wait_written()
    made.archive.fetch(7, [name(1), name(9), name(2)])
    piece = made.arrivals()[0]
    assert (list(piece.hashes), piece.is_last) == ([name(1)], True)


def test_nothing_is_saved_twice(made: Made) -> None:
    made.archive.save([1, 2], [name(1), name(2)])
    made.archive.save([2, 3], [name(2), name(3)])
    made.wait_written()
    assert made.archive.statistics(num_lost=0).num_written == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_only_finite_blocks_are_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    made = Made(tmp_path, dtype)
    made.tensors[-1][1, 3] = float("nan")
    made.tensors[0][2, 7] = float("-inf")
    made.tensors[0][3, 1] = torch.finfo(dtype).max
    made.archive.save([1, 2, 3], [name(1), name(2), name(3)])
    made.archive.close(seconds=WAIT_SECONDS)
    assert [name(number) in made.archive for number in (1, 2, 3)] == [False, False, True]
    assert made.archive.statistics(num_lost=0).num_skipped == 2
    assert is_finite(torch.zeros(4, dtype=torch.int64), dtype)


def test_what_is_saved_is_written_when_it_is_closed(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.archive.save(range(BLOCKS), [name(number) for number in range(BLOCKS)])
    made.archive.close(seconds=WAIT_SECONDS)
    assert all(name(number) in Made(tmp_path).archive for number in range(BLOCKS))


def test_it_takes_no_more_than_it_can_hold(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    size = made.copies.block_bytes
    monkeypatch.setattr(writer, "_WRITE_BYTES", 5 * size)
    monkeypatch.setattr(writer, "_TURN_BYTES", 3 * size)
    gate = threading.Event()
    monkeypatch.setattr(made.files, "write", lambda *_: gate.wait(WAIT_SECONDS))
    for count, blocks in ((3, [0, 1, 2]), (2, [3, 4]), (0, [])):
        assert made.archive.num_takeable == count
        made.archive.save(blocks, [name(number) for number in blocks])
    gate.set()
    made.wait_written()
    assert made.archive.num_takeable == 3


def test_a_full_disk_is_said_once_and_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = Made(tmp_path)
    write, calls = made.files.write, []

    def full(block_hash: bytes, contents: memoryview) -> None:
        calls.append(block_hash)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(made.files, "write", full)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            made.archive.save([number], [name(number)])
            made.wait_written()
        made.now += 31
        made.archive.save([3], [name(3)])
        made.wait_written()
    assert calls == [name(0), name(3)]
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    monkeypatch.setattr(made.files, "write", write)
    made.now += 31
    made.archive.save([4], [name(4)])
    made.archive.close(seconds=WAIT_SECONDS)
    statistics = made.archive.statistics(num_lost=0)
    assert (statistics.num_written, statistics.num_skipped) == (1, 4)


def test_long_prefixes_come_in_pieces_and_wait_to_be_taken(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, names = made.copies.block_bytes, [name(number) for number in range(BLOCKS)]
    monkeypatch.setattr(reader, "_PIECE_BYTES", 2 * size)
    monkeypatch.setattr(reader, "_READ_BYTES", 4 * size)
    made.archive.save(range(BLOCKS), names)
    made.wait_written()
    made.archive.fetch(1, names)
    pieces: list[Piece] = []
    while not pieces or not pieces[-1].is_last:
        arrived = made.arrivals()
        assert len(arrived) == 1, "one between two steps"
        pieces += arrived
    assert [len(piece.hashes) for piece in pieces] == [2] * 6
    assert [each for piece in pieces for each in piece.hashes] == names


def test_who_gave_up_gets_nothing_and_holds_up_nobody(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, names = made.copies.block_bytes, [name(number) for number in range(BLOCKS)]
    monkeypatch.setattr(reader, "_PIECE_BYTES", size)
    monkeypatch.setattr(reader, "_READ_BYTES", size)
    made.archive.save(range(BLOCKS), names)
    made.wait_written()
    made.archive.fetch(1, names)
    made.archive.give_up(1)
    made.archive.fetch(2, names[:1])
    assert [piece.request_id for piece in made.arrivals()] == [2]


def test_a_disk_that_does_not_answer_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = Made(tmp_path)
    made.archive.save([1], [name(1)])
    made.wait_written()
    gate, entered, read = threading.Event(), threading.Event(), made.files.read

    def slow(block_hash: bytes, into: memoryview) -> bool:
        entered.set()
        assert gate.wait(WAIT_SECONDS)
        return read(block_hash, into)

    monkeypatch.setattr(made.files, "read", slow)
    made.archive.fetch(1, [name(1)])
    assert entered.wait(WAIT_SECONDS)
    assert made.archive.take_arrived() == []
    made.now += 11
    with caplog.at_level(logging.WARNING):
        assert made.archive.take_arrived() == [Piece(1, (), None, is_last=True)]
    assert "does not answer" in caplog.text
    assert name(1) not in made.archive
    gate.set()
    made.archive.fetch(2, [name(1)])
    assert [piece.request_id for piece in made.arrivals()] == [2]
    assert name(1) in made.archive
    made.archive.close(seconds=WAIT_SECONDS)


class Turn:
    """Requests run over a runner's cache, with the archive or without, greedily."""

    def __init__(self, runner: ModelRunner, archive: BlockArchive | None) -> None:
        self._runner, self._archive = runner, archive
        info = runner.info
        self._scheduler = Scheduler(
            pool=BlockPool(num_blocks=info.num_blocks, block_size=info.block_size),
            max_running=8,
            max_step_tokens=64,
            archive=archive,
        )
        self.num_cached: dict[int, int] = {}

    def logits(self, requests: list[Request]) -> dict[int, list[Tensor]]:
        """What each token of each request was drawn from. One after the other: beside others a
        request is rounded otherwise."""
        rows = {request.id: self._logits(request) for request in requests}
        while self._scheduler.save_blocks():
            assert self._archive is not None
            self._archive.wait(0.01)
        return rows

    def _logits(self, request: Request) -> list[Tensor]:
        rows: list[Tensor] = []
        self._scheduler.add(request)
        while self._scheduler.has_work:
            plan = self._scheduler.plan()
            if plan is None:
                assert self._archive is not None
                self._archive.wait(0.01)
                continue
            logits = self._runner.logits(plan)
            rows += [row.clone() for row in logits]
            for event in self._scheduler.commit(plan, StepOutput(logits.argmax(-1).tolist())):
                self.num_cached[event.request_id] = event.num_cached
            self._scheduler.save_blocks()
        return rows


def next_turns(history: tuple[int, ...], rows: list[Tensor]) -> list[Request]:
    """The next turn of a conversation, in two versions."""
    answer = tuple(int(row.argmax()) for row in rows)
    return [
        greedy_request(request_id, (*history, *answer, *range(5, 25 + request_id)), 8)
        for request_id in (2, 3)
    ]


def assert_same_bits(left: dict[int, list[Tensor]], right: dict[int, list[Tensor]]) -> None:
    assert left.keys() == right.keys()
    for request_id, rows in left.items():
        assert len(rows) == len(right[request_id])
        assert all(torch.equal(a, b) for a, b in zip(rows, right[request_id], strict=True))


@pytest.mark.parametrize(
    ("model_type", "dtype"),
    [
        ("llama", "float32"),
        ("llama", "bfloat16"),
        ("gemma2", "float32"),
        ("gemma3n_text", "bfloat16"),
        ("deepseek_v3", "float32"),
        ("gpt_oss", "float32"),
    ],
)
def test_from_disk_is_bit_for_bit_as_from_memory(
    model_type: str, dtype: str, tmp_path: Path
) -> None:
    make_model(model_type, tmp_path / "model")
    options = {"dtype": dtype, "block_size": 8, "native_kernels": "off"}
    options |= {"cache_folder": tmp_path / "cache"}
    runner = make_runner(tmp_path / "model", **options)
    assert runner.archive is not None
    before = Turn(runner, runner.archive)
    first = greedy_request(1, HISTORY, 12)
    requests = next_turns(HISTORY, before.logits([first])[1])
    shutil.copytree(tmp_path / "cache", tmp_path / "later")
    from_memory = before.logits(requests)
    assert before.num_cached[2] > len(HISTORY)

    again = make_runner(tmp_path / "model", **options | {"cache_folder": tmp_path / "later"})
    assert again.archive is not None
    after = Turn(again, again.archive)
    assert_same_bits(after.logits(requests), from_memory)
    assert after.num_cached == {2: before.num_cached[2], 3: before.num_cached[3]}
    assert again.archive.statistics(num_lost=0).num_read >= len(HISTORY) // 8


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batch_invariant_answers_from_disk_are_those_computed_anew(
    dtype: str, tmp_path: Path
) -> None:
    make_model("llama", tmp_path / "model", intermediate_size=1500)
    options = {"dtype": dtype, "block_size": 8, "batch_invariant": True}
    options |= {"cache_folder": tmp_path / "cache"}
    runner = make_runner(tmp_path / "model", **options)
    rows = Turn(runner, runner.archive).logits([greedy_request(1, HISTORY, 12)])
    requests = next_turns(HISTORY, rows[1])
    anew = Turn(runner, None).logits(requests)
    again = make_runner(tmp_path / "model", **options)
    after = Turn(again, again.archive)
    assert_same_bits(after.logits(requests), anew)
    assert after.num_cached[2] > len(HISTORY)


@pytest.mark.parametrize(
    "change", [{"dtype": "bfloat16"}, {"block_size": 16}, {"batch_invariant": True}, "weights"]
)
def test_what_would_be_computed_otherwise_finds_nothing(
    change: dict[str, object] | str, tmp_path: Path
) -> None:
    make_model("llama", tmp_path / "model")
    options: dict[str, object] = {"dtype": "float32", "block_size": 8, "native_kernels": "off"}
    options |= {"cache_folder": tmp_path / "cache"}
    runner = make_runner(tmp_path / "model", **options)
    Turn(runner, runner.archive).logits([greedy_request(1, HISTORY, 2)])
    same = make_runner(tmp_path / "model", **options)
    if isinstance(change, str):
        make_model("llama", tmp_path / "model", rms_norm_eps=1e-4)
    else:
        options |= change
    other = make_runner(tmp_path / "model", **options)
    for found, is_expected in ((same, True), (other, False)):
        turn = Turn(found, found.archive)
        turn.logits([greedy_request(2, HISTORY, 2)])
        assert (turn.num_cached[2] > 0) == is_expected


def test_what_cannot_be_kept_is_said_at_start(tmp_path: Path) -> None:
    make_model("qwen3_next", tmp_path / "states", num_hidden_layers=4)
    make_model("llama", tmp_path / "model")
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match=r"--cache-folder: .* keeps states"):
        make_runner(tmp_path / "states", cache_folder=tmp_path / "cache")
    with pytest.raises(StartupError, match=r"--cache-folder: it cannot be used: .*file"):
        make_runner(tmp_path / "model", cache_folder=tmp_path / "file" / "cache")
    with pytest.raises(StartupError, match="--cache-folder-bytes: one block takes"):
        make_runner(tmp_path / "model", cache_folder=tmp_path / "cache", cache_folder_bytes=1000)
