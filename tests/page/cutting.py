"""A network between browser and server that can be cut, also in the middle of an event."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Network:
    """Passes connections on to a server on this machine. url: where a browser reaches it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._mark: bytes | None = None
        self.num_cut = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_within(self, mark: bytes) -> None:
        """Once the server sends these bytes, half of them arrive, and the connection is cut."""
        self._mark = mark

    def cut(self) -> None:
        """Cuts all connections."""
        for each in [*self._open]:
            _close(each)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                browser, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except OSError:
                    browser.close()
                    continue
                self._open |= {browser, server}
                for ends in ((browser, server), (server, browser)):
                    is_answer = ends[0] is server
                    threading.Thread(
                        target=self._pass, args=(*ends, is_answer), daemon=True
                    ).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(65536):
                if is_answer and self._mark is not None and self._mark in part:
                    end = part.index(self._mark) + len(self._mark) // 2
                    self._mark = None
                    self.num_cut += 1
                    target.sendall(part[:end])
                    break
                target.sendall(part)
        for each in (source, target):
            _close(each)
            self._open.discard(each)


@contextmanager
def network(url: str) -> Iterator[Network]:
    """A network in front of the server with this address."""
    between = Network(int(url.rpartition(":")[2].strip("/")))
    try:
        yield between
    finally:
        between.close()


def _close(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
