"""One block in one file.

A file is a header and the block's bytes. The header is what the block is known by, and a checksum
of everything: 8 bytes of magic with the format's version; 16 bytes of the fingerprint of what
computed it; 16 bytes of its hash; its length as 8 bytes, little endian; and BLAKE2b, 16 bytes, of
all this and the block. Files are written beside their place and renamed, so what has the right name
is whole unless the machine itself went down; then the checksum tells.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from hashlib import blake2b
from pathlib import Path

MAGIC = b"MILLBLK\x01"
KEY_BYTES = 16
_CHECKED = len(MAGIC) + 2 * KEY_BYTES + 8
HEADER_BYTES = _CHECKED + 16
SCRATCH_SUFFIX = ".part"


class DamagedFile(Exception):
    """A file is not what was written under its name."""


def write_block(path: Path, fingerprint: bytes, block_hash: bytes, contents: memoryview) -> None:
    """Writes a block, or nothing. Raises OSError. contents: its bytes."""
    checked = MAGIC + fingerprint + block_hash + len(contents).to_bytes(8, "little")
    header = checked + _checksum(checked, contents)
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(8)}{SCRATCH_SUFFIX}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(scratch, flags, 0o600)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            _write_all(file.fileno(), header)
            _write_all(file.fileno(), contents)
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise


def read_block(path: Path, fingerprint: bytes, block_hash: bytes, into: memoryview) -> None:
    """Reads a block into memory of its size. Raises OSError if it cannot be read, DamagedFile if
    it is not that block."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as file:
        header = file.read(HEADER_BYTES)
        checked = MAGIC + fingerprint + block_hash + len(into).to_bytes(8, "little")
        if header[:_CHECKED] != checked:
            raise DamagedFile("its header is not that of this block")
        length = 0
        while length < len(into) and (count := file.readinto(into[length:])):
            length += count
        if length < len(into) or file.read(1):
            raise DamagedFile("it has another length")
    if header[_CHECKED:] != _checksum(checked, into):
        raise DamagedFile("its checksum is wrong")


def _checksum(checked: bytes, contents: memoryview) -> bytes:
    digest = blake2b(checked, digest_size=16)
    digest.update(contents)
    return digest.digest()


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
