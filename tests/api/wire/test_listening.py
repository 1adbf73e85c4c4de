"""Listening, before anything is served: which addresses, and what is told at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from millstream.api.wire.listening import listen
from millstream.errors import StartupError
from millstream.settings import Settings

V4 = (socket.AF_INET, ("127.0.0.1", 0))
V6 = (socket.AF_INET6, ("::1", 0, 0, 0))
NOT_OURS = (socket.AF_INET, ("192.0.2.1", 0))

Listen = Callable[..., list[socket.socket]]


@pytest.fixture
def listening() -> Iterator[Listen]:
    """Listens as the server does with the given settings; closes the sockets after the test."""
    with ExitStack() as stack:

        def begin(**settings: object) -> list[socket.socket]:
            return [stack.enter_context(each) for each in listen(Settings(**settings))]  # type: ignore[arg-type]

        yield begin


def name_resolves_to(
    patch: pytest.MonkeyPatch, *found: tuple[socket.AddressFamily, object]
) -> None:
    rows = [(family, socket.SOCK_STREAM, 6, "", place) for family, place in found]
    patch.setattr(socket, "getaddrinfo", lambda *args, **options: rows)


def is_reached(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        return client.connect_ex((address, port)) == 0


def test_a_port_that_another_server_has_is_told_before_either_serves(listening: Listen) -> None:
    port = listening(port=0)[0].getsockname()[1]
    with pytest.raises(StartupError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*in use"):
        listening(port=port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-name.invalid", "a..b", "x" * 70])
def test_an_address_that_is_not_ours_is_told(listening: Listen, host: str) -> None:
    with pytest.raises(StartupError, match=f"cannot listen on {host}"):
        listening(host=host, port=0)


@pytest.mark.parametrize("found", [(V4,), (V6,), (V4, V6), (V6, V4, V6), (NOT_OURS, V6)])
def test_every_address_of_a_name_is_listened_on(
    listening: Listen,
    monkeypatch: pytest.MonkeyPatch,
    found: tuple[tuple[socket.AddressFamily, tuple[str, int]], ...],
) -> None:
    with monkeypatch.context() as patch:
        name_resolves_to(patch, *found)
        listeners = listening(host="chat.example", port=0)
    ports = {listener.getsockname()[1] for listener in listeners}
    assert len(ports) == 1
    wanted = {place[0] for _, place in found if place[0] != NOT_OURS[1][0]}
    port = ports.pop()
    assert {each for each in ("127.0.0.1", "::1") if is_reached(each, port)} == wanted


@pytest.mark.parametrize("host", ["::", ""])
def test_every_interface_means_both_families(listening: Listen, host: str) -> None:
    port = listening(host=host, port=0)[0].getsockname()[1]
    assert is_reached("127.0.0.1", port)
    assert is_reached("::1", port)


def test_children_do_not_inherit_the_port(listening: Listen) -> None:
    assert not any(os.get_inheritable(each.fileno()) for each in listening(host="", port=0))
