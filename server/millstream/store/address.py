"""The place where things are stored, as `--store` says it.

Rules: a password of a URL is never shown. Only a place that nobody named may be replaced by memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import platformdirs
from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from millstream.errors import StartupError

_FILE = "store.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """A place for a store. path: of SQLite; url: of PostgreSQL."""

    kind: Literal["memory", "sqlite", "postgresql"]
    path: Path | None = None
    url: URL | None = field(default=None, repr=False)  # a query may have a password
    is_default: bool = False

    @classmethod
    def parse(cls, text: str) -> StoreAddress | None:
        """Gives None if nothing is to be stored. Raises StartupError for what is no address."""
        if text in ("off", ""):
            return None
        if text == "auto":
            return cls(kind="sqlite", path=_default_folder() / _FILE, is_default=True)
        if text == "memory":
            return cls(kind="memory")
        if "://" not in text:
            return cls(kind="sqlite", path=_path(text))
        return cls._of_url(text)

    @classmethod
    def _of_url(cls, text: str) -> StoreAddress:
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            raise _no_address("is no URL that can be read") from None
        if url.drivername == "sqlite":
            if url.query or url.host or url.username:
                raise _no_address("of SQLite is sqlite:///PATH, without options")
            if url.database in (None, "", ":memory:"):
                return cls(kind="memory")
            return cls(kind="sqlite", path=_path(url.database or ""))
        if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
            return cls(kind="postgresql", url=url.set(drivername="postgresql+psycopg"))
        raise _no_address(f"begins with {url.drivername}; sqlite and postgresql are known")

    def __str__(self) -> str:
        """For people: a path, or a URL without its password."""
        if self.url is not None:
            shown = self.url.set(drivername="postgresql", query={})
            return shown.render_as_string(hide_password=True)
        return "memory" if self.path is None else str(self.path)


def _default_folder() -> Path:
    try:
        return platformdirs.user_data_path("millstream", appauthor=False)
    except RuntimeError:  # a user without an entry and a home
        return Path("~")


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise _no_address("names a home folder that is not there") from None


def _no_address(problem: str) -> StartupError:
    return StartupError(
        f"--store {problem} (auto, memory, off, a path, sqlite:///PATH or postgresql://...)",
        flag="--store",
    )
