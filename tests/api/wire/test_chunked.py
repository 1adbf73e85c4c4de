"""The short way for chunks says what h11 says, byte for byte, and refuses what h11 refuses."""

from __future__ import annotations

import h11
import hypothesis.strategies as st
import pytest
import uvicorn
from hypothesis import given
from uvicorn.server import ServerState

from millstream.api.wire.framing import Connection
from millstream.api.wire.protocol import Protocol

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OLD_GET = b"GET / HTTP/1.0\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
TYPE = (b"content-type", b"text/event-stream")

Exchange = tuple[bytes, list[h11.Event]]


def said(connection: h11.Connection, exchanges: list[Exchange]) -> list[object]:
    """What the connection writes for each event of each response; a refusal ends it."""
    outputs: list[object] = []
    for request, events in exchanges:
        connection.receive_data(request)
        while type(connection.next_event()) is not h11.EndOfMessage:
            pass
        for event in events:
            try:
                outputs.append(connection.send(event))
            except h11.LocalProtocolError as error:
                return [*outputs, str(error), connection.our_state]
            outputs.append(connection.our_state)
        if connection.our_state is not h11.DONE:
            return outputs
        connection.start_next_cycle()
    return outputs


def response(pieces: list[bytes], *headers: tuple[bytes, bytes]) -> list[h11.Event]:
    start = h11.Response(status_code=200, headers=[TYPE, *headers])
    return [start, *(h11.Data(data=piece) for piece in pieces), h11.EndOfMessage()]


def check(*exchanges: Exchange) -> list[object]:
    """Both connections say the same; what it is."""
    outputs = said(Connection(h11.SERVER), list(exchanges))
    assert outputs == said(h11.Connection(h11.SERVER), list(exchanges))
    return outputs


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_chunks_are_those_of_h11(pieces: list[bytes]) -> None:
    check((GET, response(pieces)), (GET, response(pieces[::-1])))


def test_a_chunk_is_framed_and_an_empty_one_is_nothing() -> None:
    outputs = check((GET, response([b"x" * 17, b"", b"y"])))
    assert outputs[2] == b"11\r\n" + b"x" * 17 + b"\r\n"
    assert outputs[4] == b""


def test_other_bodies_are_left_to_h11() -> None:
    length = (b"content-length", b"4")
    assert b"ab" in check((GET, response([b"ab", b"cd"], length)))
    assert b"ab" in check((OLD_GET, response([b"ab", b"cd"])))
    check((HEAD, response([b""])))
    check((GET, response([b"ab"])), (GET, response([b"ab", b"cd"], length)), (GET, response([])))


def test_what_h11_refuses_is_refused() -> None:
    length = (b"content-length", b"4")
    refused = "Too much data for declared Content-Length"
    assert refused in check((GET, response([b"ab"])), (GET, response([b"abcde"], length)))
    late = [*response([b"ab"]), h11.Data(data=b"late")]
    assert any("can't handle event type Data" in str(output) for output in check((GET, late)))
    check((GET, [h11.Data(data=b"early")]))


@pytest.mark.parametrize("limit", [None, 100])
async def test_every_connection_takes_the_short_way(limit: int | None) -> None:
    config = uvicorn.Config(
        lambda: None, http=Protocol, log_config=None, h11_max_incomplete_event_size=limit
    )
    connection = Protocol(config, ServerState(), {}).conn
    assert type(connection) is Connection
    connection.receive_data(b"GET / HTTP/1.1\r\nX-A: " + b"a" * 200)
    if limit is None:
        assert connection.next_event() is h11.NEED_DATA
    else:
        with pytest.raises(h11.RemoteProtocolError, match="too long"):
            connection.next_event()
