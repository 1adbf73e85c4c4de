"""Whatever a database, or the disk below it, fails with, in words for a client and an operator."""

from __future__ import annotations

import sqlite3
import zlib

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    ProgrammingError,
    SQLAlchemyError,
)

from millstream.errors import StoreFailed

FAILURES = (SQLAlchemyError, sqlite3.Error, OSError, zlib.error)
"""What the libraries raise that a store is made of."""

_SENTENCES = {
    "disk is full": "there is no room left where conversations are stored",
    "no space left": "there is no room left where conversations are stored",
    "could not extend file": "there is no room left where conversations are stored",
    "is locked": "another program holds the database of conversations",
    "malformed": "the database of conversations is damaged",
    "not a database": "the database of conversations is damaged",
    "incorrect header check": "the database of conversations is damaged",
    "readonly": "the database of conversations cannot be written",
    "read-only": "the database of conversations cannot be written",
}


def store_failure(error: BaseException) -> StoreFailed:
    """The sentence for clients; what exactly happened is its cause, for the log."""
    reason = cause_of(error).lower()
    sentence = next(
        (sentence for part, sentence in _SENTENCES.items() if part in reason),
        "the database of conversations cannot be reached",
    )
    failure = StoreFailed(f"{sentence[0].upper()}{sentence[1:]}. Try again later.")
    failure.__cause__ = error
    return failure


def is_refusal(failure: StoreFailed) -> bool:
    """Whether the database refused what it was given, of which nothing is there and which it would
    refuse again; it may have been cut off by everything else."""
    return isinstance(failure.__cause__, DataError | IntegrityError | ProgrammingError)


def cause_of(error: BaseException) -> str:
    """What the driver said, on one line, without statements and their values."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(original).split()) or type(error).__name__
