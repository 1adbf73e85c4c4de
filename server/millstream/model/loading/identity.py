"""What tells one checkpoint from another, without reading all of it.

Of every weight file: its name, size and time of modification, the header, which names all tensors
with their shapes and places, and `_SAMPLES` pages spread over the whole file. Of the configuration
and of code that the model brings: every byte. Another training run, a merged adapter or another
quantisation changes weights everywhere, so the samples see it; an edit of single numbers in place
changes the time. Only who edits single numbers and then sets the time back is not noticed.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from millstream.model.loading.source import INDEX

_SAMPLES = 64
_PAGE = 4096
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the format


def checkpoint_identity(folder: Path, files: list[Path]) -> str:
    """A digest of the model in `folder`, whose weights are in `files`. Raises OSError."""
    digest = blake2b(digest_size=16)
    for path in [folder / "config.json", folder / INDEX, *sorted(folder.glob("*.py"))]:
        if path.is_file():
            _add(digest, path.name.encode(), path.read_bytes())
    for path in files:
        status = path.stat()
        about = f"{path.name} {status.st_size} {status.st_mtime_ns}"
        _add(digest, about.encode(), *_samples(path, status.st_size))
    return digest.hexdigest()


def _samples(path: Path, size: int) -> list[bytes]:
    """The header of a file in safetensors format (of others, their beginning), and pages of the
    rest."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        found = [file.read(min(length, _LONGEST_HEADER))]
        step = max(size // _SAMPLES, _PAGE)
        for position in [*range(0, size, step), max(size - _PAGE, 0)]:
            file.seek(position)
            found.append(file.read(_PAGE))
    return found


def _add(digest: blake2b, *parts: bytes) -> None:
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
