"""What goes from one HTTP worker to another and back, when the other is gone, and how it ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from millstream.api.peers.answer_ids import new_answer_id
from millstream.api.peers.listeners import peer_listeners
from millstream.api.peers.peers import Peers
from millstream.runtime.state import State
from tests.http_workers.two_workers import (
    HttpWorker,
    byte_tokenizer,
    http_worker,
    marked_tokenizer,
    start_workers,
    two,
)
from tests.runtime.conftest import until

__all__ = ["byte_tokenizer", "marked_tokenizer", "start_workers", "two"]

Two = Sequence[HttpWorker]
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
TEXT = "one two three four"
ID = new_answer_id("resp_", 48, worker=1)
URL = f"/v1/responses/{ID}"
EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
EVENT_STREAM += b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Alone:
    """The first of two workers. `answer` is what the second does with a connection; None: it is
    gone, and its connections wait in the kernel."""

    def __init__(self, worker: HttpWorker) -> None:
        self.worker = worker
        self.answer: Answer | None = None
        self.head = b""

    async def on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        assert self.answer is not None
        writer.write(b"\n")
        with suppress(OSError):
            self.head = await reader.readuntil(b"\r\n\r\n")
            await self.answer(reader, writer)
        writer.close()

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What the second worker was sent last."""
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


@pytest.fixture
def alone(marked_tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., Any]:
    """Starts the first worker: `async with alone(answer, **settings) as alone`."""

    @asynccontextmanager
    async def start(answer: Answer | None, **settings: Any) -> AsyncIterator[Alone]:
        with peer_listeners(2) as (own, others):
            peers = Peers(0, [own.getsockname(), others.getsockname()], patience=0.3)
            async with http_worker(
                peers, marked_tokenizer, listener=own, store=tmp_path / "store.db", **settings
            ) as worker:
                alone = Alone(worker)
                alone.answer = answer
                if answer is None:
                    yield alone
                    return
                async with await asyncio.start_unix_server(alone.on_connection, sock=others.dup()):
                    yield alone

    return start


async def says_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Own: 1\r\nDate: never\r\n\r\nok")


async def test_a_request_arrives_as_it_was_sent(alone: Any) -> None:
    async with alone(says_ok) as one:
        target = f"{URL}?a=%2F+%20&&include[]=b&starting_after=&x=%c3%a9"
        sent = {
            "Authorization": "Bearer k",
            "X-Request-Id": "mine",
            "Cookie": "a=b",
            "X-Other": "\xe9",
            "Connection": "X-Hop, keep-alive, host",
            "X-Hop": "1",
            "X-Millstream-Client": "forged",
            "X-Millstream-Failure": "forged",
        }
        reader, writer = await asyncio.open_connection(
            one.worker.client.base_url.host, one.worker.client.base_url.port
        )
        lines = [f"GET {target} HTTP/1.1", "Host: here:1"]
        lines += [f"{name}: {value}" for name, value in sent.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer = await reader.readuntil(b"ok")
        own_port = writer.get_extra_info("sockname")[1]
        writer.close()
        assert one.head.startswith(f"GET {target} HTTP/1.1\r\n".encode())
        headers = dict(one.headers)
        assert len(headers) == len(one.headers), "each once"
        said = json.loads(headers.pop("x-millstream-client"))
        assert said == {"client": ["127.0.0.1", own_port], "scheme": "http"}
        assert headers == {
            "host": "here:1",
            "authorization": "Bearer k",
            "x-request-id": "mine",
            "cookie": "a=b",
            "x-other": "\xe9",
            "x-millstream-failure": "forged",
            "connection": "close",
        }
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        head = answer.lower()
        assert head.count(b"\r\ndate:") == head.count(b"\r\nx-request-id: mine\r\n") == 1
        assert b"\r\nx-own: 1\r\n" in head


async def test_a_body_is_sent_on_as_it_comes(alone: Any) -> None:
    pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def reads_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            pieces.put_nowait(await reader.readuntil(b"}\r\n"))
        assert await reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"
        await says_ok(reader, writer)

    async with alone(reads_pieces) as one:

        async def body() -> AsyncIterator[bytes]:
            for number in range(2):
                yield b"{%d}" % number
                assert await pieces.get() == b"3\r\n{%d}\r\n" % number

        response = await one.worker.client.post(f"{URL}/cancel", content=body())
        assert response.text == "ok"


async def test_an_answer_is_passed_on_as_it_comes(alone: Any) -> None:
    news: asyncio.Queue[bytes] = asyncio.Queue()

    async def streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENT_STREAM)
        while data := await news.get():
            writer.write(chunk(data))
        writer.write(chunk(b""))

    async with alone(streams) as one, one.worker.stream("GET", URL) as reader:
        for piece in ("data: 1\n\n", ": ping\n\n", "data: hal", "f\n\n"):
            so_far = reader.seen + piece
            news.put_nowait(piece.encode())
            await reader.until(partial(str.__eq__, so_far))
        news.put_nowait(b"")
        assert await reader.rest() == "data: 1\n\n: ping\n\ndata: half\n\n"


async def test_a_client_that_leaves_before_the_answer_begins(alone: Any) -> None:
    left, asked = asyncio.Event(), asyncio.Event()

    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        assert await reader.read() == b""
        left.set()

    async with alone(says_nothing) as one:
        asking = asyncio.create_task(one.worker.client.get(URL))
        await asked.wait()
        asking.cancel()
        async with asyncio.timeout(10):
            await left.wait()
        await until(lambda: one.worker.counted == {("GET", "/v1/responses/{id}", 499): 1})


async def test_a_worker_that_is_gone_is_waited_for_and_told(alone: Any) -> None:
    async with alone(None) as one:
        for method, path in (("GET", URL), ("DELETE", URL), ("POST", f"{URL}/cancel")):
            response = await one.worker.client.request(method, path)
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "worker_unavailable"
            assert response.headers["retry-after"] == "1"
        path = "/v1/chat/completions/mine/cancel"
        response = await one.worker.client.post(path)
        assert response.json()["error"]["code"] == "worker_unavailable", "it may have it"


async def test_the_next_worker_of_the_number_answers(
    marked_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """What was asked while there was none waited for it; it answers from the store."""
    with peer_listeners(2) as listeners:
        paths = [listener.getsockname() for listener in listeners]

        def worker(number: int) -> Any:
            return http_worker(
                Peers(number, paths, patience=20),
                marked_tokenizer,
                listener=listeners[number],
                store=tmp_path / "store.db",
            )

        async with worker(0) as here:
            async with worker(1) as maker:
                maker.speaker.say(TEXT)
                made = await maker.begin()
                await maker.settled()
            asking = asyncio.create_task(here.text(made))
            await until(lambda: bool(here.peers.forwarding))
            async with worker(1) as maker:
                assert await asking == TEXT
                assert maker.runs is not None


async def test_a_worker_that_cannot_say_whether_it_has_a_request(alone: Any) -> None:
    async def fails(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 Failed\r\nContent-Length: 0\r\n\r\n")

    async with alone(fails) as one:
        path = "/v1/chat/completions/mine/cancel"
        error = (await one.worker.ask("POST", path, 503))["error"]
        assert error["code"] == "worker_unavailable"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", b"nonsense\r\n\r\n"])
async def test_a_worker_that_ends_before_it_answers(alone: Any, said: bytes) -> None:
    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    async with alone(ends) as one:
        error = (await one.worker.ask("GET", URL, 503))["error"]
        assert error["code"] == "worker_unavailable"


async def test_a_stream_whose_worker_ends_says_so(
    alone: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENT_STREAM + chunk(b"data: 1\n\n"))

    caplog.set_level(logging.INFO, "millstream.requests")
    async with alone(ends) as one:
        text = (await one.worker.client.get(URL)).text
        first, last, end = text.split("\n\n")
        assert (first, end) == ("data: 1", "")
        error = json.loads(last.removeprefix("data: "))["error"]
        assert error["code"] == "worker_unavailable"
        await until(lambda: "error=worker_unavailable" in caplog.text)


@pytest.mark.parametrize(
    "said",
    [
        EVENT_STREAM + chunk(b"data: 1\n\ndata: ha"),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    ],
)
async def test_an_answer_that_is_cut_in_the_middle_is_not_whole(alone: Any, said: bytes) -> None:
    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    async with alone(ends) as one:
        with pytest.raises(httpx.RemoteProtocolError):
            await one.worker.client.get(URL)


async def test_a_request_is_logged_and_counted_once(
    start_workers: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "millstream.requests")
    here, maker = await start_workers(allowed_origins=["http://page"])
    response = await here.client.get(URL, headers={"Origin": "http://page"})
    assert response.status_code == 404
    assert response.headers["access-control-allow-origin"] == "http://page"
    assert response.headers["vary"] == "Origin"
    assert "x-millstream-failure" not in response.headers
    await until(lambda: bool(here.counted))
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"GET {URL} 404 id={response.headers['x-request-id']} ")
    assert " error=response_not_found param=id " in line
    assert here.counted == {("GET", "/v1/responses/{id}", 404): 1}
    assert here.context.http_metrics.refused == {"response_not_found": 1}
    assert maker.counted == maker.context.http_metrics.refused == {}


async def test_a_client_cannot_say_that_it_is_a_worker(two: Two) -> None:
    here, maker = two
    maker.speaker.say(TEXT)
    forged = {"X-Millstream-Client": '{"client": null, "scheme": "https"}'}
    with maker.speaker.silent(after=2):
        body = {"input": "x", "background": True, "store": True}
        made = (await maker.ask("POST", "/v1/responses", json=body, headers=forged))["id"]
        (run,) = maker.runs
        await until(lambda: bool(run.snapshot()["output"]))
        shown = await here.ask("GET", f"/v1/responses/{made}", headers=forged)
        assert shown["output"], "it was asked where it is made"
    await until(lambda: here.counted == {("GET", "/v1/responses/{id}", 200): 1})
    assert maker.counted == {("POST", "/v1/responses", 200): 1}


async def test_what_another_worker_asks_goes_no_further(two: Two) -> None:
    """Workers that take each other for the maker do not send a request round and round."""
    here, other = two
    here.context.peers.number, other.context.peers.number = 7, 7  # type: ignore[union-attr]
    for number in (0, 1):
        url = f"/v1/responses/{new_answer_id('resp_', 48, worker=number)}"
        await here.ask("GET", url, 404)


async def test_a_path_below_a_prefix(start_workers: Callable[..., Any]) -> None:
    here, maker = await start_workers(root_path="/below")
    maker.speaker.say(TEXT)
    for prefix in ("", "/below"):
        with maker.speaker.silent(after=2):
            made = await maker.begin()
            shown = await here.ask("GET", f"{prefix}/v1/responses/{made}")
            assert shown["status"] in ("queued", "in_progress")
            headers = {"x-request-id": "mine"}
            asking = maker.client.post("/v1/responses", json={"input": "x"}, headers=headers)
            running = asyncio.create_task(asking)
            await until(lambda: maker.context.engine.num_open == 2)
            await here.ask("POST", f"{prefix}/v1/completions/mine/cancel")
            await running
            await here.ask("POST", f"{prefix}/v1/responses/{made}/cancel")


async def test_a_prefix_with_which_routes_begin_as_well(start_workers: Callable[..., Any]) -> None:
    here, maker = await start_workers(root_path="/v1")
    maker.speaker.say(TEXT)
    with maker.speaker.silent(after=2):
        headers = {"x-request-id": "mine"}
        asking = maker.client.post("/v1/v1/responses", json={"input": "x"}, headers=headers)
        running = asyncio.create_task(asking)
        await until(lambda: maker.context.engine.num_open == 1)
        await here.ask("POST", "/v1/v1/completions/mine/cancel")
        await running


async def test_what_is_read_from_another_worker_ends_before_the_server_does(two: Two) -> None:
    here, maker = two
    maker.speaker.say(TEXT)
    with maker.speaker.silent(after=2):
        made = await maker.begin()
        async with here.stream("GET", f"/v1/responses/{made}?stream=true") as reader:
            await reader.first()
            here.server.begin_exit()
            await until(lambda: here.context.engine.state is State.DRAINING)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not here.server.should_exit
            maker.speaker.allow(None)
            assert "response.completed" in await reader.rest()
        await until(lambda: here.server.should_exit)
