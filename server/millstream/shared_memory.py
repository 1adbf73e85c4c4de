"""Memory that the processes of one server share, with a lock that dies with its holder.

One process makes it and hands its descriptor to its children. Numbers that all of them must agree
on lie there: places, limits of keys. The lock is the kernel's (`fcntl(2)`, F_SETLKW): it belongs to
a process, and a process that ends, however it ends, has given it back.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from typing import Self

_FLOCK = struct.Struct("hhqqi4x")
"""`struct flock` of Linux with 64-bit offsets, as fcntl(2) has it: type, whence, start, length,
process."""


class SharedMemory:
    """Zeros at first. For one thread of each process, once in each process.

    descriptor, num_bytes: for the children. buffer: the bytes, which may be written.
    """

    def __init__(self, descriptor: int, num_bytes: int) -> None:
        """Takes the descriptor over. In a child: what its parent has handed to it."""
        self.descriptor = descriptor
        self.num_bytes = num_bytes
        self._map = mmap.mmap(descriptor, num_bytes)
        self.buffer = memoryview(self._map)

    @classmethod
    def create(cls, num_bytes: int) -> Self:
        """Raises OSError where there is no room for it."""
        if sys.platform == "linux":
            descriptor = os.memfd_create("millstream")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.truncate(descriptor, num_bytes)
        return cls(descriptor, num_bytes)

    @contextlib.contextmanager
    def locked(self) -> Iterator[memoryview]:
        """Waits until nobody else has the lock, and holds it. Not to be nested."""
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
        try:
            yield self.buffer
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

    def lock_holder(self) -> int | None:
        """The process that has the lock; None if nobody has it, or this process, and where systems
        do not tell. Any thread may ask."""
        if sys.platform != "linux":
            return None
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, process = _FLOCK.unpack(fcntl.fcntl(self.descriptor, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else process

    def close(self) -> None:
        """Gives it back; what was made of `buffer` must be gone."""
        self.buffer.release()
        self._map.close()
        os.close(self.descriptor)
