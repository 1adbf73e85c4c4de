"""Who is alive: a lease that each server holds as long as it runs, and that ends with it.

SQLite: a locked file in a folder beside the database. PostgreSQL: an advisory lock of a connection
that is kept for it. Others see whether a lease is free by trying to take it. The system gives a
lock back when its process ends, however it ends.

Rules: a lease is held before its name is written anywhere.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout
from sqlalchemy import Connection, text

from millstream.store.address import StoreAddress
from millstream.store.database import Database, postgresql_engine

_OLD_SECONDS = 3600


class Lease(Protocol):
    """This server's lease. name: what the rows of its responses say."""

    name: str

    def keep(self) -> None:
        """Takes it again if it was lost."""
        ...

    def is_free(self, name: str) -> bool:
        """Whether the server that had this lease is gone."""
        ...

    def release(self) -> None:
        """Gives it back; idempotent."""
        ...


def take_lease(database: Database) -> Lease:
    """One for this server. Raises OSError or what the database does."""
    if database.address.kind == "postgresql":
        return _AdvisoryLease(database)
    if database.address.path is None:
        return _NoLease()
    return _FileLease(lease_folder(database.address))


def lease_folder(address: StoreAddress) -> Path:
    """The folder beside a database file."""
    assert address.path is not None
    return address.path.with_name(f"{address.path.name}-servers")


class _NoLease:
    """Memory has no other servers."""

    name = "memory"

    def keep(self) -> None:
        pass

    def is_free(self, name: str) -> bool:
        return name != self.name

    def release(self) -> None:
        pass


class _FileLease:
    def __init__(self, folder: Path) -> None:
        self.name = secrets.token_hex(16)
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        self._remove_old()
        self._lock = self._lock_of(self.name)
        self._lock.acquire(timeout=0)

    def keep(self) -> None:
        pass

    def is_free(self, name: str) -> bool:
        if name == self.name:
            return False
        if not self._path(name).exists():
            return True
        try:
            with self._lock_of(name).acquire(timeout=0):
                return True
        except Timeout:
            return False

    def release(self) -> None:
        # Removed while it is held: nobody finds it free before.
        with contextlib.suppress(OSError):
            self._path(self.name).unlink()
        self._lock.release(force=True)

    def _remove_old(self) -> None:
        """Those of servers that ended without giving them back; a missing one is free as well."""
        for path in self._folder.glob("*.lock"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _OLD_SECONDS and self.is_free(path.stem):
                    path.unlink()

    def _lock_of(self, name: str) -> FileLock:
        return FileLock(self._path(name), mode=0o600, thread_local=False)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"


class _AdvisoryLease:
    """Safe for threads: whoever closes the store does not wait for what looks after the lease."""

    def __init__(self, database: Database) -> None:
        self._key = secrets.randbits(62)
        self.name = str(self._key)
        assert database.address.url is not None
        self._engine = postgresql_engine(database.address.url, size=2, isolation="AUTOCOMMIT")
        self._connection: Connection | None = None
        self._changing = threading.Lock()
        self._is_released = False
        try:
            self.keep()
        except BaseException:
            self.release()
            raise

    def keep(self) -> None:
        with self._changing:
            if self._is_released:
                return
            if self._connection is not None:
                try:
                    self._connection.execute(text("SELECT 1"))
                    return
                except Exception:
                    self._drop()
            connection = self._engine.connect()
            try:
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": self._key})
            except BaseException:
                connection.close()
                raise
            self._connection = connection

    def is_free(self, name: str) -> bool:
        if name == self.name or not name.isdigit():
            return name != self.name
        with self._changing:
            if self._is_released:
                return False
            with self._engine.connect() as connection:
                taken = text("SELECT pg_try_advisory_xact_lock(:key)")
                return bool(connection.execute(taken, {"key": int(name)}).scalar())

    def release(self) -> None:
        with self._changing:
            self._is_released = True
            if self._connection is not None:
                # A connection that is only closed has its lock until the server notices.
                with contextlib.suppress(Exception):
                    unlock = text("SELECT pg_advisory_unlock(:key)")
                    self._connection.execute(unlock, {"key": self._key})
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.invalidate()  # to close it only would keep it, and its lock, for others
                connection.close()
        self._engine.dispose()
