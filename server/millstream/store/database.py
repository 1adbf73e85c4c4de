"""Connections to the database: an engine for the one that writes, and one for those that read.

SQLite: a log ahead of the file (WAL), so that readers and the writer do not wait for each other.
`synchronous=NORMAL`: a commit does not wait for the disk; it outlives the process, and the last
ones may be lost when power fails. Nothing is checkpointed by a commit (`maintenance.py` does it).
Deleted bytes are overwritten with zeros, and pages that are free can be given back.

Rules: what is stored is for its owner's eyes: the file, its log and index have mode 0600, since
SQLite gives those two the mode of the file. A writing transaction takes the lock at its beginning.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.pool import QueuePool, StaticPool

from millstream.errors import StartupError
from millstream.store.address import StoreAddress

NUM_READERS = 4

# What a file says of itself from then on; to set it waits for whoever writes. Free pages can be
# given back only if that was said before there were tables.
_FOR_A_FILE = ("auto_vacuum=INCREMENTAL", "journal_mode=WAL")
_FOR_EACH_CONNECTION = (
    "synchronous=NORMAL",
    "wal_autocheckpoint=0",
    "secure_delete=ON",
    "temp_store=MEMORY",
)

# A server that is gone without a word is noticed, as long as the URL does not say otherwise.
_POSTGRESQL: dict[str, Any] = {
    "application_name": "millstream",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
}


@dataclass(frozen=True, slots=True)
class Database:
    """Engines of one database. Without one that reads, all is done by the one that writes."""

    address: StoreAddress
    writing: Engine
    reading: Engine | None

    def dispose(self) -> None:
        """Closes all connections."""
        self.writing.dispose()
        if self.reading is not None:
            self.reading.dispose()


def connect(address: StoreAddress, *, busy_seconds: float) -> Database:
    """Makes engines, and the file. Connections are made when first needed. Raises OSError."""
    if address.kind == "postgresql":
        assert address.url is not None
        return Database(
            address,
            writing=postgresql_engine(address.url, size=1, isolation="READ COMMITTED"),
            reading=postgresql_engine(address.url, size=NUM_READERS, isolation="REPEATABLE READ"),
        )
    if address.path is None:
        memory = create_engine(
            "sqlite://",
            creator=lambda: _set(_open(":memory:", 1.0), _FOR_A_FILE),
            poolclass=StaticPool,
        )
        _begin_with(memory, "BEGIN IMMEDIATE")
        return Database(address, writing=memory, reading=None)
    make_private_file(address.path)
    name = str(address.path)
    _set(_open(name, busy_seconds), _FOR_A_FILE).close()
    return Database(
        address,
        writing=_sqlite(lambda: _open(name, busy_seconds), "BEGIN IMMEDIATE", size=1),
        reading=_sqlite(lambda: _open(name, busy_seconds), "BEGIN", size=NUM_READERS),
    )


def make_private_file(path: Path) -> None:
    """An empty file that only its owner can open, in a folder of which the same is true."""
    if not path.is_absolute():
        raise FileNotFoundError(errno.ENOENT, "there is no home folder", str(path))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def open_plainly(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection of the driver's, for what is no transaction."""
    return _open(str(path), busy_seconds)


def postgresql_engine(url: URL, *, size: int, isolation: IsolationLevel) -> Engine:
    """An engine that finds out whether its connections still are any. Raises StartupError."""
    arguments = {name: value for name, value in _POSTGRESQL.items() if name not in url.query}
    try:
        return create_engine(
            url,
            pool_size=size,
            max_overflow=0,
            pool_pre_ping=True,
            isolation_level=isolation,
            connect_args=arguments,
        )
    except ImportError as error:
        raise StartupError(
            "PostgreSQL needs its driver: pip install 'millstream[postgres]'", flag="--store"
        ) from error


def _sqlite(creator: Callable[[], sqlite3.Connection], begin: str, *, size: int) -> Engine:
    engine = create_engine(
        "sqlite://", creator=creator, poolclass=QueuePool, pool_size=size, max_overflow=0
    )
    _begin_with(engine, begin)
    return engine


def _open(name: str, busy_seconds: float) -> sqlite3.Connection:
    # Without an isolation level the driver begins and ends no transaction by itself.
    connection = sqlite3.connect(
        name, timeout=busy_seconds, isolation_level=None, check_same_thread=False
    )
    return _set(connection, _FOR_EACH_CONNECTION)


def _set(connection: sqlite3.Connection, options: Sequence[str]) -> sqlite3.Connection:
    try:
        for option in options:
            connection.execute(f"PRAGMA {option}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _begin_with(engine: Engine, statement: str) -> None:
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)
