"""A client that leaves gives back its place and its blocks, however it leaves.

The answers asked for would take minutes. Every test ends with the server idle within seconds
(`no_leak`, for all tests of this folder), so only a cancellation can have ended them.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient

from .harness import RunningServer
from .sdk import async_openai_client, openai_client
from .wire import LONG, messages, open_stream

STORY = messages("Tell me a story")


def assert_freed(server: RunningServer) -> None:
    """Everything is free again, and the engine answers."""
    server.wait_idle()
    assert server.chat("Hello").status_code == 200


def send_unstreamed(server: RunningServer) -> socket.socket:
    """A plain socket that has sent a whole request for a long unstreamed answer."""
    address = urlsplit(server.url)
    body = json.dumps({"messages": STORY, "max_tokens": LONG}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection((address.hostname, address.port))
    connection.sendall(head.encode() + body)
    return connection


def test_openai_stream_close(endless_server: RunningServer) -> None:
    with openai_client(endless_server.url) as client:
        stream = client.chat.completions.create(
            model="any", messages=STORY, max_tokens=LONG, stream=True
        )
        next(stream)
        endless_server.wait_engine(num_running=1)
        stream.close()
        assert_freed(endless_server)


def test_openai_break_inside_with(endless_server: RunningServer) -> None:
    with openai_client(endless_server.url) as client:
        with client.chat.completions.create(
            model="any", messages=STORY, max_tokens=LONG, stream=True
        ) as stream:
            for _ in stream:
                break
        assert_freed(endless_server)


async def test_openai_task_cancelled(endless_server: RunningServer) -> None:
    async def read() -> None:
        stream = await client.chat.completions.create(
            model="any", messages=STORY, max_tokens=LONG, stream=True
        )
        async for _ in stream:
            begun.set()

    begun = asyncio.Event()
    async with async_openai_client(endless_server.url) as client:
        await cancel_when(begun, asyncio.create_task(read()))
        await asyncio.to_thread(assert_freed, endless_server)


async def test_openai_unstreamed_task_cancelled(endless_server: RunningServer) -> None:
    async with async_openai_client(endless_server.url) as client:
        asking = asyncio.create_task(
            client.chat.completions.create(model="any", messages=STORY, max_tokens=LONG)
        )
        await asyncio.to_thread(endless_server.wait_engine, num_running=1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.to_thread(assert_freed, endless_server)


@pytest.mark.parametrize("how", ["client.close", "client dropped", "stream dropped"])
def test_hub_leaves(how: str, endless_server: RunningServer) -> None:
    client: Any = InferenceClient(base_url=endless_server.url)
    stream: Any = client.chat.completions.create(messages=STORY, max_tokens=LONG, stream=True)
    next(iter(stream))
    endless_server.wait_engine(num_running=1)
    if how == "client.close":
        client.close()
    elif how == "client dropped":
        client = None
        gc.collect()
    else:
        stream = None
        gc.collect()
    assert_freed(endless_server)
    del client, stream


async def test_hub_task_cancelled(endless_server: RunningServer) -> None:
    async def read() -> None:
        stream = await client.chat.completions.create(messages=STORY, max_tokens=LONG, stream=True)
        async for _ in stream:
            begun.set()

    begun = asyncio.Event()
    async with AsyncInferenceClient(base_url=endless_server.url) as client:
        await cancel_when(begun, asyncio.create_task(read()))
        await asyncio.to_thread(assert_freed, endless_server)


async def cancel_when(begun: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Cancels the task once it has read something."""
    await asyncio.wait_for(begun.wait(), timeout=30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_curl_interrupted(endless_server: RunningServer) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "these tests need curl"
    body = json.dumps({"messages": STORY, "max_tokens": LONG, "stream": True})
    command = [curl, "-sN", f"{endless_server.url}/v1/chat/completions"]
    command += ["-H", "Content-Type: application/json", "-d", body]
    # A shell that runs the tests in the background makes its children ignore SIGINT.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heed) as process:
        assert process.stdout is not None
        assert any(line.startswith("data: {") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    assert_freed(endless_server)


def test_socket_closed_during_an_unstreamed_request(endless_server: RunningServer) -> None:
    with send_unstreamed(endless_server):
        endless_server.wait_engine(num_running=1)
    assert_freed(endless_server)


def test_only_the_one_who_leaves_is_cancelled(endless_server: RunningServer) -> None:
    with open_stream(endless_server) as staying:
        staying.next()
        with open_stream(endless_server) as leaving:
            leaving.next()
            endless_server.wait_engine(num_running=2)
        endless_server.wait_open(1)
        endless_server.wait_engine(num_running=1)
        seen = [staying.next() for _ in range(50)]
        assert all('"finish_reason":null' in event for event in seen)


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
def test_leaving_the_queue(streamed: bool, endless_server: RunningServer) -> None:
    with ExitStack() as running:
        for _ in range(8):
            running.enter_context(open_stream(endless_server))
        endless_server.wait_engine(num_running=8, num_waiting=0)
        with open_stream(endless_server) if streamed else send_unstreamed(endless_server):
            endless_server.wait_engine(num_running=8, num_waiting=1)
        endless_server.wait_open(8)
        endless_server.wait_engine(num_running=8, num_waiting=0)
    assert_freed(endless_server)


def test_leaving_before_the_first_token(endless_server: RunningServer) -> None:
    with endless_server.paused_engine():
        for _ in range(20):
            with open_stream(endless_server):
                pass
        endless_server.wait_open(0)
    assert_freed(endless_server)


def test_many_leave_at_random_points(endless_server: RunningServer) -> None:
    for num_read in (1, 7, 2, 13, 3, 5, 11, 4):
        with ExitStack() as streams:
            opened = [streams.enter_context(open_stream(endless_server)) for _ in range(3)]
            for stream in opened:
                for _ in range(num_read):
                    stream.next()
    assert_freed(endless_server)
