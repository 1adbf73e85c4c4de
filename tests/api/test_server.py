"""Listening, before anything is served."""

from __future__ import annotations

import pytest

from millstream.api.server import bind
from millstream.errors import StartupError
from millstream.settings import Settings


def test_taken_port_is_told_at_once() -> None:
    with bind(Settings(port=0)) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(StartupError, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
            bind(Settings(port=port))


def test_wrong_address_is_told() -> None:
    with pytest.raises(StartupError, match=r"cannot listen on 192\.0\.2\.1"):
        bind(Settings(host="192.0.2.1", port=0))
