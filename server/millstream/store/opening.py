"""Opens a database for a server: the file or connection, its tables, the server's lease.

Rules: what the operator named and cannot be used is an error; only the default place is replaced
by memory, and a warning says so. A damaged file is never replaced, whoever named it.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from millstream.errors import StartupError
from millstream.store.address import StoreAddress
from millstream.store.database import Database, connect, open_plainly
from millstream.store.failures import FAILURES, cause_of
from millstream.store.leases import Lease, take_lease
from millstream.store.migrating import migrate
from millstream.store.records import StoredResponse

log = logging.getLogger(__name__)

_CHECK_SECONDS = 2.0
_DAMAGED = ("malformed", "not a database", "damaged")
_UNUSABLE = ("readonly", "unable to open", "disk is full", "disk i/o error")


@dataclass(frozen=True, slots=True)
class Opened:
    """A database that is ready, and this server's lease."""

    database: Database
    lease: Lease

    def of_the_gone(self, running: Sequence[tuple[StoredResponse, str]]) -> list[StoredResponse]:
        """Those whose server's lease is free."""
        gone = {name: self.lease.is_free(name) for name in {name for _, name in running}}
        return [response for response, name in running if gone[name]]

    def close(self) -> None:
        """Gives back the lease and closes all connections; idempotent."""
        self.lease.release()
        self.database.dispose()


def open_database(address: StoreAddress, *, busy_seconds: float) -> Opened:
    """Raises StartupError with a sentence. Blocks."""
    try:
        return _open(address, busy_seconds)
    except StartupError:
        raise
    except FAILURES as error:
        if address.is_default and _is_unusable(error):
            log.warning(
                "%s cannot be used (%s): conversations and responses are kept in memory, and lost "
                "when the server ends; --store names another place",
                address,
                cause_of(error),
            )
            return _open(StoreAddress(kind="memory"), busy_seconds)
        raise StartupError(_sentence(address, error), flag="--store") from error


def _open(address: StoreAddress, busy_seconds: float) -> Opened:
    database = connect(address, busy_seconds=busy_seconds)
    try:
        migrate(database.writing)
        _check_pages(address, busy_seconds)
        return Opened(database, take_lease(database))
    except BaseException:
        database.dispose()
        raise


def _check_pages(address: StoreAddress, busy_seconds: float) -> None:
    """Looks for damage, for a moment: of a large file a part is seen."""
    if address.path is None:
        return
    with contextlib.closing(open_plainly(address.path, busy_seconds)) as connection:
        timer = threading.Timer(_CHECK_SECONDS, connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            if "interrupted" not in str(error):
                raise
            return
        finally:
            timer.cancel()
            timer.join()
        if found is not None and found[0] not in ("ok", ""):
            raise sqlite3.DatabaseError(f"damaged: {found[0]}")


def _is_unusable(error: BaseException) -> bool:
    return isinstance(error, OSError) or any(part in cause_of(error).lower() for part in _UNUSABLE)


def _sentence(address: StoreAddress, error: BaseException) -> str:
    reason = cause_of(error)
    if any(part in reason.lower() for part in _DAMAGED):
        return (
            f"the database of conversations {address} is damaged ({reason}); restore a copy, or "
            f"move it away together with {address}-wal and {address}-shm to begin with an empty one"
        )
    if isinstance(error, OSError):
        reason = error.strerror or reason
    if isinstance(error, SQLAlchemyError) and address.kind == "postgresql":
        return f"cannot store conversations in {address}: {reason}"
    return f"cannot store conversations in {address}: {reason}; --store names another place"
