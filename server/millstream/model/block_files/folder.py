"""All files of one --cache-folder: which are there, how much they take, and which go first.

Rules:
1. A block's file is `prefix-blocks/FINGERPRINT/HH/HASH`, in hexadecimal, HH being the beginning of
   the hash. Files of other fingerprints are those of other models or other ways to compute; they
   count for the limit and are dropped like ours. What has other names is not touched.
2. When there is no room, the file goes that was used longest ago, whoever wrote it. Its time of
   modification is when it was used last. Of a chain that is the beginning, so the end goes first.
3. Several servers may have one folder: files are written whole and only ever replaced by the same
   bytes, a file that is gone is a block that is not there, and what others have written is found by
   looking again after every eighth of the limit.
4. A file that is not what its name says is deleted, and the first one gives a warning.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from millstream.model.block_files.block_file import (
    HEADER_BYTES,
    SCRATCH_SUFFIX,
    DamagedFile,
    read_block,
    write_block,
)

log = logging.getLogger(__name__)

SUBFOLDER = "prefix-blocks"
_PAGE = 4096
_STALE_SECONDS = 3600
_HEX_16 = re.compile(r"[0-9a-f]{32}")
_HEX_1 = re.compile(r"[0-9a-f]{2}")


class _Found(NamedTuple):
    """A block's file as it lies there. key: fingerprint and hash."""

    used: int
    key: bytes
    size: int


def room_of(num_bytes: int) -> int:
    """What a block of so many bytes takes on a disk, where files begin on whole pages."""
    return -(-(HEADER_BYTES + num_bytes) // _PAGE) * _PAGE


def prepare_folder(root: Path) -> Path:
    """The folder of all blocks below `root`, there and for nobody else. Raises OSError."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = root / SUBFOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is somebody else's, or a link")
    if status.st_mode & 0o077:
        folder.chmod(0o700)
    trial = folder / f"trial.{os.getpid()}{SCRATCH_SUFFIX}"
    with contextlib.suppress(FileNotFoundError):
        trial.unlink()
    os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    trial.unlink()
    return folder


class BlockFolder:
    """The blocks with one fingerprint, in a folder that holds `limit` bytes of any. For a thread
    that reads, one that writes and touches, and any that ask what is there."""

    def __init__(self, folder: Path, *, fingerprint: bytes, limit: int) -> None:
        """folder: as of `prepare_folder()`."""
        self._folder = folder
        self._fingerprint = fingerprint
        self._limit = limit
        self._lock = threading.Lock()
        self._sizes: OrderedDict[bytes, int] = OrderedDict()  # by key, used longest ago first
        self._total = 0
        self._unlooked = 0  # bytes written since the last look at the folder
        self.num_damaged = 0
        self.look()
        self._make_room(0)

    @property
    def num_blocks(self) -> int:
        return len(self._sizes)

    @property
    def num_bytes(self) -> int:
        return self._total

    def __contains__(self, block_hash: bytes) -> bool:
        return self._fingerprint + block_hash in self._sizes

    def look(self) -> None:
        """Learns what is in the folder now, and removes what others have left half-written."""
        found = sorted(self._find())
        with self._lock:
            self._sizes = OrderedDict((each.key, each.size) for each in found)
            self._total = sum(self._sizes.values())
            self._unlooked = 0

    def read(self, block_hash: bytes, into: memoryview) -> bool:
        """Reads a block into memory of its size; False if it is not there or not itself."""
        path = self._path(self._fingerprint + block_hash)
        try:
            read_block(path, self._fingerprint, block_hash, into)
            return True
        except FileNotFoundError:
            pass
        except DamagedFile as error:
            self._note_damage(path, error)
            with contextlib.suppress(OSError):
                path.unlink()
        except OSError as error:
            self._note_damage(path, error)
        self._forget(self._fingerprint + block_hash)
        return False

    def write(self, block_hash: bytes, contents: memoryview) -> None:
        """Writes a block, dropping others if need be. Raises OSError."""
        key, room = self._fingerprint + block_hash, room_of(len(contents))
        if self._unlooked > self._limit // 8:
            self.look()
        self._make_room(room)
        path = self._path(key)
        try:
            write_block(path, self._fingerprint, block_hash, contents)
        except FileNotFoundError:  # the first of its folder
            for folder in (path.parent.parent, path.parent):
                folder.mkdir(mode=0o700, exist_ok=True)
            write_block(path, self._fingerprint, block_hash, contents)
        with self._lock:
            self._total += room - self._sizes.pop(key, 0)
            self._sizes[key] = room
            self._unlooked += room

    def touch(self, hashes: Sequence[bytes]) -> None:
        """These blocks of a chain are used now, if they are there."""
        now = time.time_ns()
        for later, block_hash in enumerate(reversed(hashes)):
            key = self._fingerprint + block_hash
            if key in self._sizes:
                with contextlib.suppress(OSError):
                    os.utime(self._path(key), ns=(now + later, now + later))
                with self._lock, contextlib.suppress(KeyError):
                    self._sizes.move_to_end(key)

    def _path(self, key: bytes) -> Path:
        fingerprint, block_hash = key[:16].hex(), key[16:].hex()
        return self._folder / fingerprint / block_hash[:2] / block_hash

    def _make_room(self, room: int) -> None:
        while self._total + room > self._limit and self._sizes:
            with self._lock:
                key, size = self._sizes.popitem(last=False)
                self._total -= size
            with contextlib.suppress(OSError):
                self._path(key).unlink()

    def _forget(self, key: bytes) -> None:
        with self._lock:
            self._total -= self._sizes.pop(key, 0)

    def _note_damage(self, path: Path, error: Exception) -> None:
        self.num_damaged += 1
        if self.num_damaged == 1:
            log.warning(
                "the prefix cache on disk: %s cannot be used and is dropped: %s. Its tokens are "
                "computed again; further ones are only counted",
                path,
                error,
            )

    def _find(self) -> Iterator[_Found]:
        for fingerprint in _folders(self._folder, _HEX_16):
            for beginning in _folders(fingerprint, _HEX_1):
                for entry in _entries(beginning):
                    found = _block_of(entry, fingerprint.name)
                    if found is not None:
                        yield found


def _block_of(entry: os.DirEntry[str], fingerprint: str) -> _Found | None:
    """The block in a file; None if it is something else."""
    with contextlib.suppress(OSError):
        status = entry.stat(follow_symlinks=False)
        if _HEX_16.fullmatch(entry.name):
            key = bytes.fromhex(fingerprint + entry.name)
            return _Found(status.st_mtime_ns, key, room_of(status.st_size - HEADER_BYTES))
        is_scratch = entry.name.endswith(SCRATCH_SUFFIX)
        if is_scratch and status.st_mtime < time.time() - _STALE_SECONDS:
            os.unlink(entry.path)
    return None


def _folders(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    entries = _entries(folder)
    names = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
    return [folder / name for name in names if pattern.fullmatch(name)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
