"""The sockets that the server listens on: one for each address of `--host`.

Rules: a port that another server has, or begins to have at the same moment, is refused before a
model is loaded. Nobody inherits these sockets, or the port would stay taken while a child lives.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from millstream.errors import StartupError
from millstream.settings import Settings

_BACKLOG = 2048
_TRIES = 20  # for a port that is free at every address
_NO_SUCH_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}


class _Address(NamedTuple):
    family: socket.AddressFamily
    place: tuple[Any, ...]


def listen(settings: Settings) -> list[socket.socket]:
    """Listens on every address of the host, on one port. Raises StartupError if it cannot."""
    try:
        addresses = _addresses_of(settings.host)
        for attempt in range(_TRIES):
            try:
                return _listen_on(addresses, settings.port)
            except OSError as error:
                is_chance = settings.port == 0 and error.errno == errno.EADDRINUSE
                if not is_chance or attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")
    except (OSError, UnicodeError) as error:
        where = f"{settings.host}:{settings.port}"
        reason = getattr(error, "strerror", None) or error
        raise StartupError(f"cannot listen on {where}: {reason}") from error


def _addresses_of(host: str) -> list[_Address]:
    """The addresses of a name, each once; those of every interface for an empty name."""
    found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(_Address(family, place) for family, _, _, _, place in found))


def _listen_on(addresses: Sequence[_Address], port: int) -> list[socket.socket]:
    """A socket for each address that this machine has. port: 0 takes one that is free for all."""
    # Where nothing else listens for IPv4, `::` does.
    is_separate = any(address.family is socket.AF_INET for address in addresses)
    listeners: list[socket.socket] = []
    missing: OSError | None = None
    with ExitStack() as stack:
        for address in addresses:
            try:
                listener = _listen_at(address, port, is_separate=is_separate)
            except OSError as error:
                # A name may have an address of a family that is switched off here.
                if error.errno not in _NO_SUCH_ADDRESS:
                    raise
                missing = error
                continue
            listeners.append(stack.enter_context(listener))
            port = listener.getsockname()[1]
        if missing is not None and not listeners:
            raise missing
        stack.pop_all()
    return listeners


def _listen_at(address: _Address, port: int, *, is_separate: bool) -> socket.socket:
    listener = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_separate)
        listener.bind((address.place[0], port, *address.place[2:]))
        # Not later: two servers may bind one port, but not listen.
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
