"""The short way of a streamed body's pieces: from the response to the connection, past all between.

Between the headers of a streamed response and its end, the layers of the application hand on each
piece as it is. To ask them all takes longer than to write it.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope

WRITER_STATE = "millstream_write_piece"
"""Where the state of a request has the writer of its connection."""

PieceWriter = Callable[[bytes], bool]
"""Sends a piece of the body; False, and nothing is sent, if it must go the long way."""


def piece_writer(scope: Scope) -> PieceWriter:
    """The writer for a response. Behind another server than ours, one that never sends."""
    writer: PieceWriter = scope.get("state", {}).get(WRITER_STATE, never)
    return writer


def never(piece: bytes) -> bool:
    """The writer that refuses every piece."""
    return False
