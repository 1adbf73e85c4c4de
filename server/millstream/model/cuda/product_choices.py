"""The ways in which few-row products were fastest on this device, kept in a file between starts.

A timing takes seconds, most of them spent on compiling what is tried and not used in the end; and
the same choice at every start means that a server rounds as it did before it was restarted.

Rules: a file is of one device, one version of torch and of Triton, and one text of our kernels, so
nothing stale is read. A file that is damaged or cannot be written costs a timing, never the server.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout

from millstream.model.cuda.product_tiles import ProductTile, candidates

log = logging.getLogger(__name__)

_SOURCES = (
    "dependent_launch.py",
    "triton_product_kernels.py",
    "triton_products.py",
    "product_tiles.py",
)
_LOCK_SECONDS = 10


class ProductKind(NamedTuple):
    """Products that are computed in one way: a weight [outputs, inputs] and up to `rows` rows."""

    dtype: torch.dtype
    outputs: int
    inputs: int
    rows: int

    @property
    def name(self) -> str:
        """The kind as the file names it."""
        number_type = str(self.dtype).removeprefix("torch.")
        return f"{number_type} {self.outputs}x{self.inputs}, {self.rows} rows"


class ProductChoices:
    """The fastest way for each kind of product. Mutated by `note()` only."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """environment: whatever a timing depends on beside the kind of the product."""
        told = json.dumps({**environment, "sources": _digest_of_sources()}, sort_keys=True)
        self._path = folder / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"
        self._environment = dict(environment)
        self._found = _read(self._path)

    def find(self, kind: ProductKind) -> tuple[bool, ProductTile | None]:
        """Whether the kind is known, and its tile; None: torch is as fast."""
        numbers = self._found.get(kind.name, ())
        if numbers is None:
            return True, None
        tile = next((one for one in candidates(*kind[1:]) if list(one) == numbers), None)
        return tile is not None, tile

    def note(self, found: Mapping[ProductKind, ProductTile | None]) -> None:
        """Keeps what was found out, in the file too, beside what others wrote there meanwhile."""
        new = {kind.name: None if tile is None else list(tile) for kind, tile in found.items()}
        self._found.update(new)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(self._path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
                choices = {**_read(self._path), **new}
                text = json.dumps({"environment": self._environment, "choices": choices}, indent=1)
                scratch = self._path.with_suffix(f".{os.getpid()}")
                scratch.write_text(text)
                os.replace(scratch, self._path)
        except (OSError, Timeout) as error:
            log.info("timings of products are not kept: %s", error)


def _read(path: Path) -> dict[str, Any]:
    try:
        choices = json.loads(path.read_text())["choices"]
        return choices if isinstance(choices, dict) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(files(__package__).joinpath(name).read_bytes())
    return digest.hexdigest()
