"""A GGUF file: its metadata, and where its tensors lie. No torch: the HTTP side needs it too.

Source of the format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The package `gguf`
reads it too, but makes arrays of every string, which takes half a minute for a large vocabulary.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Container
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from millstream.errors import StartupError

_VERSIONS = (2, 3)
_ALIGNMENT = 32  # bytes, unless the file names another one
_STRING, _ARRAY = 8, 9
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""Types of metadata, and struct's letters for them."""


class BlockKind(NamedTuple):
    """A type of tensors: its name, the numbers of a block, and the bytes that they take."""

    name: str
    numbers: int
    num_bytes: int


KINDS = {
    0: BlockKind("F32", 1, 4),
    1: BlockKind("F16", 1, 2),
    30: BlockKind("BF16", 1, 2),
    2: BlockKind("Q4_0", 32, 18),
    3: BlockKind("Q4_1", 32, 20),
    6: BlockKind("Q5_0", 32, 22),
    7: BlockKind("Q5_1", 32, 24),
    8: BlockKind("Q8_0", 32, 34),
    12: BlockKind("Q4_K", 256, 144),
    13: BlockKind("Q5_K", 256, 176),
    14: BlockKind("Q6_K", 256, 210),
}
"""Types of tensors that are known here, by ggml's numbers."""


class SkippedStrings(NamedTuple):
    """An array of strings that nobody asked for."""

    length: int


class GgufTensor(NamedTuple):
    """A tensor of the file. shape: in torch's order; start: its first byte in the file."""

    shape: tuple[int, ...]
    kind: BlockKind
    start: int

    @property
    def num_bytes(self) -> int:
        """What it takes in the file."""
        return prod(self.shape) // self.kind.numbers * self.kind.num_bytes


@dataclass(frozen=True, slots=True)
class GgufFile:
    """What a GGUF file says before its tensors begin."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        return str(self.metadata.get("general.architecture"))


def read_gguf(path: Path, *, wanted: Container[str] = ()) -> GgufFile:
    """Reads what stands before the tensors. wanted: arrays of strings that are read as well.

    Raises StartupError for another format, an unknown type of tensors or a file that is cut short.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(path, data, wanted)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise StartupError(f"{path} cannot be read: {error}") from error
    except (struct.error, UnicodeDecodeError, KeyError) as error:
        raise StartupError(f"{path} is damaged or incomplete; fetch it again") from error


def _read(path: Path, data: mmap.mmap, wanted: Container[str]) -> GgufFile:
    if data[:4] != b"GGUF":
        raise StartupError(f"{path} is not a GGUF file")
    version, num_tensors, num_entries = struct.unpack_from("<IQQ", data, 4)
    if version not in _VERSIONS:
        raise StartupError(f"{path} is version {version} of GGUF; 2 and 3 are known here")
    cursor, metadata = _Cursor(data, 24), dict[str, Any]()
    for _ in range(num_entries):
        name = cursor.string()
        metadata[name] = cursor.value(cursor.number("I"), keeps_strings=name in wanted)
    described = [cursor.tensor() for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    first = -(-cursor.position // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, shape, code, offset in described:
        if (kind := KINDS.get(code)) is None:
            raise StartupError(
                f"{path.name}: {name} is stored in the GGML type {code}, which is not known here; "
                f"known are {', '.join(known.name for known in KINDS.values())}"
            )
        tensors[name] = GgufTensor(shape, kind, first + offset)
        if shape[-1] % kind.numbers or tensors[name].num_bytes + first + offset > len(data):
            raise StartupError(f"{path} is damaged or incomplete; fetch it again")
    return GgufFile(path, metadata, tensors)


class _Cursor:
    """Reads one thing after the other."""

    def __init__(self, data: mmap.mmap, position: int) -> None:
        self._data = data
        self.position = position

    def number(self, code: str) -> Any:
        """A number of one of struct's formats."""
        (found,) = struct.unpack_from("<" + code, self._data, self.position)
        self.position += struct.calcsize("<" + code)
        return found

    def string(self) -> str:
        """A string: its length, then its bytes."""
        length, start = self.number("Q"), self.position
        self.position += length
        if self.position > len(self._data):
            raise struct.error("a string reaches beyond the file")
        return self._data[start : self.position].decode("utf-8")

    def value(self, code: int, *, keeps_strings: bool) -> Any:
        """A value of metadata of the type `code`."""
        if code == _STRING:
            return self.string()
        if code != _ARRAY:
            return self.number(_NUMBERS[code])
        code, length = self.number("I"), self.number("Q")
        if code in _NUMBERS:
            form = f"<{length}{_NUMBERS[code]}"
            found = struct.unpack_from(form, self._data, self.position)
            self.position += struct.calcsize(form)
            return [*found]
        if code == _STRING and not keeps_strings:
            for _ in range(length):
                self.position += 8 + struct.unpack_from("<Q", self._data, self.position)[0]
            return SkippedStrings(length)
        return [self.value(code, keeps_strings=keeps_strings) for _ in range(length)]

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape in torch's order, type and place of a tensor."""
        name, dims = self.string(), self.number("I")
        shape = tuple(self.number("Q") for _ in range(dims))[::-1]
        return name, shape, self.number("I"), self.number("Q")
