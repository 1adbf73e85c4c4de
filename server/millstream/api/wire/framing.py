"""h11's server side, with bounds on what it accepts and on what one piece of input costs.

Rules: a head has so many lines and a version that is spoken here. What is mostly frame is no body.
An answer that is given before its request has arrived, or to a request whose end is doubtful, is
the connection's last.
"""

from __future__ import annotations

import re
from typing import Protocol

import h11

_MAX_HEAD_LINES = 256
_MAX_FRAME_BYTES = 20 * 1024
_BYTES_PER_FRAME_BYTE = 32

_HEAD_END = re.compile(rb"\n\r?\n")
_VERSION = re.compile(rb" HTTP/([0-9])\.[0-9]\r?\n")
_CHUNK_HEAD = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_LINE_END = b"\r\n"
_CLOSE = (b"connection", b"close")
_HEADERS_TOO_LARGE = 431
_VERSION_NOT_SUPPORTED = 505


class Refused(h11.RemoteProtocolError):
    """What h11 would take and this server does not; the message is for the client."""


def framed(data: bytes) -> bytes:
    """A piece of a chunked body (RFC 9112, section 7.1); an empty one would be its end."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class Connection(h11.Connection):
    """One connection's side of h11, which also has a short way for the pieces of a streamed body.

    Between the headers of a chunked response and its end, h11's state machine allows data and
    stays as it is; to ask it costs more than to frame a chunk (RFC 9112, section 7.1).
    """

    _is_chunked = False
    _is_doubtful = False

    @property
    def is_in_chunks(self) -> bool:
        """Whether the body of a chunked response is under way."""
        return self._is_chunked and self.our_state is h11.SEND_BODY

    @property
    def is_request_open(self) -> bool:
        """Whether the client may still be sending a request."""
        return self.their_state in (h11.SEND_BODY, h11.ERROR)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """What has arrived next. Raises RemoteProtocolError, of which Refused is one."""
        if self.their_state is h11.IDLE:
            self._check_head()
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = {name for name, _ in event.headers}
            # RFC 9112, section 6.1: somebody on the way may have gone by the other header.
            self._is_doubtful = {b"content-length", b"transfer-encoding"} <= names
            if b"transfer-encoding" in names:
                # h11's own takes ten times as long for each chunk, and has no bounds.
                self._reader = ChunkedBody()
        return event

    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override]
        if type(event) is h11.Data and self.is_in_chunks:
            return framed(event.data)
        if type(event) is not h11.Response:
            return super().send(event)
        if (self.is_request_open or self._is_doubtful) and _CLOSE not in event.headers:
            event = h11.Response(
                status_code=event.status_code,
                headers=[*event.headers, _CLOSE],
                reason=event.reason,
            )
        output = super().send(event)
        assert output is not None, "a response has headers"
        self._is_chunked = b"\r\nTransfer-Encoding: chunked\r\n" in output
        return output

    def _check_head(self) -> None:
        head, _ = self.trailing_data
        end = _HEAD_END.search(head)
        if head.count(b"\n", 0, end.start() if end else len(head)) > _MAX_HEAD_LINES:
            raise Refused("too many headers", error_status_hint=_HEADERS_TOO_LARGE)
        version = _VERSION.search(head, 0, head.find(b"\n") + 1)
        if version is not None and version[1] != b"1":
            raise Refused("the version must be HTTP/1.1", error_status_hint=_VERSION_NOT_SUPPORTED)


class _Buffer(Protocol):
    """What has arrived and was not read, as h11 keeps it."""

    def maybe_extract_at_most(self, count: int) -> bytearray | None: ...
    def maybe_extract_next_line(self) -> bytearray | None: ...


class ChunkedBody:
    """A chunked body for h11 to read (RFC 9112, section 7.1). Extensions and trailers are dropped.

    Called with what has arrived, it gives all that is whole as one event, or None.
    """

    def __init__(self) -> None:
        self._left = 0  # of the chunk
        self._is_chunk_begun = False
        self._is_trailer = False
        self._is_over = False
        self._num_bytes = 0
        self._num_frame_bytes = 0

    def __call__(self, buffer: _Buffer) -> h11.Data | h11.EndOfMessage | None:
        content = bytearray()
        while not self._is_over:
            if self._left:
                piece = buffer.maybe_extract_at_most(self._left)
                if piece is None:
                    break
                content += piece
                self._left -= len(piece)
                self._num_bytes += len(piece)
            else:
                line = buffer.maybe_extract_next_line()
                if line is None:
                    break
                self._read_line(line)
        if content:
            return h11.Data(data=bytes(content))
        return h11.EndOfMessage() if self._is_over else None

    def _read_line(self, line: bytearray) -> None:
        self._num_frame_bytes += len(line)
        allowed = _MAX_FRAME_BYTES + self._num_bytes // _BYTES_PER_FRAME_BYTE
        if self._num_frame_bytes > allowed:
            raise Refused("the body is mostly frame; send larger chunks")
        if self._is_trailer:
            self._is_over = line == _LINE_END
        elif self._is_chunk_begun:
            if line != _LINE_END:
                raise Refused("a chunk is longer than it says")
            self._is_chunk_begun = False
        else:
            found = _CHUNK_HEAD.fullmatch(line)
            if found is None:
                raise Refused("a chunk does not say how long it is")
            self._left = int(found[1], 16)
            self._is_trailer = self._left == 0
            self._is_chunk_begun = not self._is_trailer
