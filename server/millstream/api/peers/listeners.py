"""The Unix sockets over which the HTTP workers of one server forward requests to each other.

The process that starts the workers makes them, and keeps them open: a worker inherits its own, and
the next one of its number inherits the same, so what comes in between waits for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from millstream.errors import StartupError

_BACKLOG = 2048
_LONGEST_FOLDER = 60
"""Bytes of a folder's path that leave room in the name of a socket, which may have 103 on macOS."""


@contextlib.contextmanager
def peer_listeners(count: int) -> Iterator[list[socket.socket]]:
    """One socket for each worker, in the order of their numbers, in a folder that nobody but this
    user may enter. `getsockname()` is its path. Raises StartupError."""
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        folder = "/tmp"
    with contextlib.ExitStack() as stack:
        try:
            # Nobody else may enter it: that is how tempfile makes folders.
            made = tempfile.TemporaryDirectory(prefix="millstream-", dir=folder)
            place = Path(stack.enter_context(made))
            listeners = [
                stack.enter_context(_listen_at(place / str(number))) for number in range(count)
            ]
        except OSError as error:
            reason = error.strerror or error
            raise StartupError(f"HTTP workers cannot have sockets in {folder}: {reason}") from error
        yield listeners


def _listen_at(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
