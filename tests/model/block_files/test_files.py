"""Blocks in files: whole or not there, bounded, the last used stay, others' are not touched."""

from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path

import pytest

from millstream.model.block_files import block_file
from millstream.model.block_files.block_file import DamagedFile, read_block, write_block
from millstream.model.block_files.folder import BlockFolder, prepare_folder, room_of

PRINT, OTHER_PRINT = b"f" * 16, b"g" * 16
SIZE = 5000
ROOM = room_of(SIZE)


def name(number: int) -> bytes:
    """The hash of a test's block."""
    return bytes([number]) * 16


def contents(number: int) -> memoryview:
    return memoryview(bytes([number, 255 - number]) * (SIZE // 2))


def open_folder(root: Path, *, num_blocks: int = 100, fingerprint: bytes = PRINT) -> BlockFolder:
    folder = prepare_folder(root)
    return BlockFolder(folder, fingerprint=fingerprint, limit=num_blocks * ROOM)


def read(folder: BlockFolder, number: int) -> bytes | None:
    into = bytearray(SIZE)
    return bytes(into) if folder.read(name(number), memoryview(into)) else None


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_what_is_written_is_found_after_a_restart(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "new" / "cache")
    for number in range(3):
        folder.write(name(number), contents(number))
    again = open_folder(tmp_path / "new" / "cache")
    assert [read(again, number) for number in range(3)] == [contents(n) for n in range(3)]
    assert (again.num_blocks, again.num_bytes) == (3, 3 * ROOM) == (3, folder.num_bytes)
    assert name(3) not in again
    assert read(again, 3) is None
    assert again.num_damaged == 0


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    (tmp_path / "prefix-blocks").mkdir(mode=0o755)
    folder = open_folder(tmp_path)
    folder.write(name(1), contents(1))
    below = tmp_path / "prefix-blocks"
    for path in [below, *below.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o600 if path.is_file() else 0o700), path


def test_another_fingerprint_finds_nothing(tmp_path: Path) -> None:
    open_folder(tmp_path).write(name(1), contents(1))
    other = open_folder(tmp_path, fingerprint=OTHER_PRINT)
    assert name(1) not in other
    assert read(other, 1) is None
    assert other.num_bytes == ROOM


def test_the_last_used_stay(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, num_blocks=4)
    for number in range(4):
        folder.write(name(number), contents(number))
    folder.touch([name(0), name(1)])
    for number in (4, 5, 6):
        folder.write(name(number), contents(number))
    there = {number for number in range(7) if read(folder, number)}
    assert there == {0, 4, 5, 6}, "of a chain the beginning stays"
    assert folder.num_bytes == 4 * ROOM == sum(room_of(SIZE) for _ in files(tmp_path))
    again = open_folder(tmp_path, num_blocks=2)
    assert {number for number in range(7) if read(again, number)} == {5, 6}
    assert len(files(tmp_path)) == 2


def test_files_of_other_models_go_first_if_they_are_older(tmp_path: Path) -> None:
    open_folder(tmp_path, fingerprint=OTHER_PRINT).write(name(1), contents(1))
    folder = open_folder(tmp_path, num_blocks=2)
    folder.write(name(2), contents(2))
    folder.write(name(3), contents(3))
    assert folder.num_blocks == len(files(tmp_path)) == 2
    assert read(folder, 2)


@pytest.mark.parametrize("how", ["flipped", "cut", "longer", "empty", "of another", "header"])
def test_a_damaged_file_is_deleted_and_said_once(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = open_folder(tmp_path)
    for number in (1, 2):
        folder.write(name(number), contents(number))
    for path in files(tmp_path):
        data = bytearray(path.read_bytes())
        changed = {
            "flipped": data[:3000] + bytes([data[3000] ^ 1]) + data[3001:],
            "cut": data[:-1],
            "longer": data + b"x",
            "empty": b"",
            "of another": files(tmp_path)[1].read_bytes(),
            "header": b"something else entirely" * 300,
        }[how]
        path.write_bytes(changed)
    with caplog.at_level(logging.WARNING):
        assert read(folder, 1) is None
        is_itself = how == "of another"
        assert (read(folder, 2) is not None) == is_itself
    assert folder.num_damaged == (1 if is_itself else 2)
    assert folder.num_blocks == len(files(tmp_path)) == (1 if is_itself else 0)
    assert len(caplog.records) == 1
    folder.write(name(1), contents(1))
    assert read(folder, 1) == contents(1)


def test_what_has_other_names_is_not_touched(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    folder.write(name(1), contents(1))
    place = files(tmp_path)[0].parent
    others = [tmp_path / "letter.txt", tmp_path / "prefix-blocks" / "notes", place / "readme"]
    for path in others:
        path.write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (place.parent / "ff").symlink_to(tmp_path / "elsewhere")
    again = open_folder(tmp_path, num_blocks=1)
    again.write(name(2), contents(2))
    assert all(path.read_text() == "mine" for path in others)
    assert again.num_blocks == 1


def test_half_written_files_of_servers_that_were_killed_go(tmp_path: Path) -> None:
    open_folder(tmp_path).write(name(1), contents(1))
    place = files(tmp_path)[0].parent
    old, new = place / "a.part", place / "b.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - 4000))
    open_folder(tmp_path)
    assert not old.exists()
    assert new.exists(), "somebody may be writing it"


def test_two_servers_on_one_folder(tmp_path: Path) -> None:
    first, second = open_folder(tmp_path, num_blocks=8), open_folder(tmp_path, num_blocks=8)
    for number in range(6):
        first.write(name(number), contents(number))
    for number in range(10, 16):
        second.write(name(number), contents(number))
    for folder in (first, second):
        for number in range(16):
            assert read(folder, number) in (None, contents(number))
        assert folder.num_damaged == 0
    assert len(files(tmp_path)) <= 8 + 2, "a look after every eighth of the limit"
    assert read(second, 5) == contents(5), "what others have written is found in time"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_folder(tmp_path)
    write, calls = os.write, []

    def full(descriptor: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(block_file.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write(name(1), contents(1))
    assert calls
    assert not files(tmp_path)
    assert name(1) not in folder
    assert folder.num_bytes == 0


def test_a_write_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(block_file.os, "write", lambda where, data: write(where, data[:1000]))
    write_block(tmp_path / "block", PRINT, name(1), contents(1))
    into = bytearray(SIZE)
    read_block(tmp_path / "block", PRINT, name(1), memoryview(into))
    assert into == contents(1)
    with pytest.raises(DamagedFile):
        read_block(tmp_path / "block", OTHER_PRINT, name(1), memoryview(into))


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "prefix-blocks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="or a link"):
        prepare_folder(tmp_path)
