"""The HTTP protocol's limits, without a server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from millstream.api.wire.protocol import Protocol
from millstream.api.wire.server import Server
from millstream.metrics.http_metrics import HttpMetrics
from millstream.settings import Settings


class Transport(asyncio.Transport):
    """Keeps what is written; says when it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()


def test_idle_connections_outlast_those_of_clients() -> None:
    engine: Any = None
    server = Server(FastAPI(), engine=engine, settings=Settings(), http_metrics=HttpMetrics())
    assert 60 < server.config.timeout_keep_alive < 120


async def test_headers_that_trickle_in_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millstream.api.wire.protocol.HEADER_SECONDS", 0.0)
    monkeypatch.setattr("millstream.api.wire.closing.LINGER_SECONDS", 0.0)
    config = uvicorn.Config(lambda: None, http=Protocol, log_config=None)
    protocol, transport = Protocol(config, ServerState(), {}), Transport()
    protocol.connection_made(transport)
    protocol.data_received(b"GET / HTTP/1.1\r\nX-A: ")
    await transport.closed.wait()
    assert transport.written.startswith(b"HTTP/1.1 408 ")
    protocol.data_received(b"more\r\n\r\n")  # dropped
    assert transport.written.count(b"HTTP/1.1") == 1


async def test_more_connections_than_there_may_be_are_refused() -> None:
    class Few(Protocol):
        max_connections = 2

    config, state = uvicorn.Config(lambda: None, http=Few, log_config=None), ServerState()

    def connected() -> tuple[Few, Transport]:
        protocol, transport = Few(config, state, {}), Transport()
        protocol.connection_made(transport)
        return protocol, transport

    first, second, third = connected(), connected(), connected()
    assert third[1].written.startswith(b"HTTP/1.1 429 ")
    assert third[1].closed.is_set()
    first[0].connection_lost(None)
    third[0].connection_lost(None)
    assert not connected()[1].closed.is_set()
    assert not second[1].closed.is_set()
