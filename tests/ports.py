"""Ports for servers that have to be told one, and cannot be asked which they got."""

from __future__ import annotations

import random
import socket

_RANGE = range(20_000, 30_000)
"""Below what Linux and macOS give to connections and to whoever asks for any port."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has. Whoever runs beside gets it only by asking for it."""
    for port in random.SystemRandom().sample(_RANGE, 100):
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise AssertionError("a hundred ports are all taken")
