"""Server-sent events over HTTP/1.1, read as cheaply as Python can.

Rules: one connection per request; every read is one batch of events with one time stamp; a body
that ends before its announced end is a CutStream, never a quiet success. Why not httpx: the client
shares its cores with the server under test (costs of both in README.md).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_READ_BYTES = 65_536
_MAX_ERROR_CHARACTERS = 200


class WireError(Exception):
    """The request failed; the message is for people."""


class CutStream(WireError):
    """The server closed the connection before the answer was complete."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to post. path: of the API's root, such as "/v1"."""

    host: str
    port: int
    is_tls: bool
    path: str

    @classmethod
    def parse(cls, base_url: str) -> Endpoint:
        """From a base URL, with or without a trailing /v1. Raises ValueError if it is none."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{base_url!r} is not an http:// or https:// URL")
        is_tls = parts.scheme == "https"
        path = parts.path.rstrip("/")
        return cls(
            host=parts.hostname,
            port=parts.port or (443 if is_tls else 80),
            is_tls=is_tls,
            path=path if path.endswith("/v1") else f"{path}/v1",
        )


class BodyDecoder:
    """The response body out of the bytes of a connection (RFC 9112, sections 6 and 7)."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.is_complete = False
        self._is_chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        self._left: int | None = int(length) if length and not self._is_chunked else None
        self._buffer = b""
        self.is_complete = self._left == 0

    @property
    def ends_with_connection(self) -> bool:
        return not self._is_chunked and self._left is None

    def push(self, data: bytes) -> bytes:
        if self._is_chunked:
            return self._push_chunked(data)
        if self._left is not None:
            self._left -= len(data)
            self.is_complete = self._left <= 0
        return data

    def _push_chunked(self, data: bytes) -> bytes:
        buffer, body, position = self._buffer + data, [], 0
        while not self.is_complete:
            line_end = buffer.find(b"\r\n", position)
            if line_end < 0:
                break
            size = int(buffer[position:line_end].split(b";")[0], 16)
            end = line_end + 2 + size
            if size == 0:
                self.is_complete = True
            elif len(buffer) < end + 2:
                break
            else:
                body.append(buffer[line_end + 2 : end])
                position = end + 2
        self._buffer = buffer[position:]
        return b"".join(body)


class EventSplitter:
    """The `data` of server-sent events out of a body, however it is cut. Comments are dropped."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def push(self, body: bytes) -> list[bytes]:
        lines = (self._rest + body).split(b"\n")
        self._rest = lines.pop()
        events = []
        for line in lines:
            line = line.rstrip(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events


async def post_events(
    endpoint: Endpoint, route: str, body: bytes, *, api_key: str | None, timeout: float
) -> AsyncGenerator[tuple[float, list[bytes]], None]:
    """Post JSON and yield (time of arrival, events) until the answer ends. Close it to cancel.

    Times are of `time.perf_counter`. Raises WireError, with the server's text if it refused.
    """
    tls = ssl.create_default_context() if endpoint.is_tls else None
    try:
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=tls)
    except OSError as error:
        raise WireError(f"no connection: {error}") from error
    # A timer for the whole request costs less than one for every read.
    deadline = asyncio.get_running_loop().call_later(timeout, writer.transport.abort)
    try:
        writer.write(_head(endpoint, route, len(body), api_key) + body)
        status, headers = _parse_head(await reader.readuntil(b"\r\n\r\n"))
        decoder, splitter = BodyDecoder(headers), EventSplitter()
        if status != 200:
            raise WireError(f"HTTP {status}: {await _error_text(reader, decoder)}")
        while not decoder.is_complete:
            data = await reader.read(_READ_BYTES)
            now = time.perf_counter()
            if not data:
                if decoder.ends_with_connection and deadline.when() > _loop_time():
                    return
                break
            if events := splitter.push(decoder.push(data)):
                yield now, events
        if not decoder.is_complete:
            raise CutStream(_reason(deadline, "the stream was cut"))
    except (OSError, asyncio.IncompleteReadError) as error:
        raise CutStream(_reason(deadline, f"the connection was lost: {error}")) from error
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise WireError(f"the answer is not HTTP: {error}") from error
    finally:
        deadline.cancel()
        writer.close()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _reason(deadline: asyncio.TimerHandle, otherwise: str) -> str:
    return "the request took too long" if deadline.when() <= _loop_time() else otherwise


def _head(endpoint: Endpoint, route: str, length: int, api_key: str | None) -> bytes:
    lines = [
        f"POST {endpoint.path}{route} HTTP/1.1",
        f"Host: {endpoint.host}:{endpoint.port}",
        "Content-Type: application/json",
        "Accept: text/event-stream",
        f"Content-Length: {length}",
        "Connection: close",
    ]
    if api_key:
        lines.append(f"Authorization: Bearer {api_key}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    status_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    version, code, *_ = status_line.split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"status line {status_line[:40]!r}")
    pairs = (line.partition(":") for line in lines)
    return int(code), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _error_text(reader: asyncio.StreamReader, decoder: BodyDecoder) -> str:
    text = b""
    while not decoder.is_complete and (data := await reader.read(_READ_BYTES)):
        text += decoder.push(data)
    return " ".join(text.decode("utf-8", "replace").split())[:_MAX_ERROR_CHARACTERS]
