"""Processes of workers that end, and whether others take their places."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence

import pytest

from millstream.errors import EngineLost, StartupError
from millstream.http_workers.messages import Drain, ToHub
from millstream.http_workers.processes import Launch, WorkerProcesses

# A worker with a fate: to serve until it is told to end, to serve and end, or to end at once.
_WORKER = """
import json, sys
import zmq
from millstream.http_workers.messages import Serving, encode

fate, endpoint = json.loads(sys.stdin.readline())
if fate == "fails":
    sys.exit(2)
context = zmq.Context()
socket = context.socket(zmq.PAIR)
socket.connect(endpoint)
socket.send(encode(Serving()))
if fate == "serves":
    socket.recv()
socket.close(linger=1000)
context.term()
sys.exit(0 if fate == "serves" else 1)
"""


class _Listener:
    """Does nothing about it."""

    def greet(self, worker: int) -> None: ...

    def on_worker_message(self, worker: int, message: ToHub) -> None: ...

    def on_worker_end(self, worker: int) -> None: ...


class Tried:
    """Workers whose processes have these fates, one after the other."""

    def __init__(self, *fates: Sequence[str], max_restarts: int) -> None:
        def handed(worker: int, start: int, endpoint: str) -> bytes:
            self.num_starts[worker] += 1
            if worker == len(fates) - 1 and start == len(fates[worker]) - 1:
                self.last_began.set()
            return json.dumps([fates[worker][start], endpoint]).encode() + b"\n"

        self.last_began = asyncio.Event()
        self.num_starts = [0 for _ in fates]
        self.workers = WorkerProcesses(
            Launch([sys.executable, "-c", _WORKER], handed, lambda worker: ()),
            count=len(fates),
            max_restarts=max_restarts,
            pause=0.0,
        )

    async def run(self) -> None:
        async with asyncio.timeout(60):
            await self.workers.run(_Listener())


async def test_one_that_cannot_be_started_again_is_tried_while_another_serves() -> None:
    fates = ["ends", *["fails"] * 4, "serves"]
    tried = Tried(["serves"], fates, max_restarts=1)
    running = asyncio.create_task(tried.run())
    await asyncio.wait(
        [running, asyncio.create_task(tried.last_began.wait())], return_when="FIRST_COMPLETED"
    )
    assert not running.done()
    tried.workers.start_no_more()
    tried.workers.send(0, Drain())
    await running
    assert tried.num_starts == [1, len(fates)]


async def test_one_that_cannot_be_started_again_ends_what_serves_nobody() -> None:
    tried = Tried(["ends", "fails"], max_restarts=1)
    with pytest.raises(EngineLost, match="status 2, once more"):
        await tried.run()
    assert tried.num_starts == [2]


async def test_one_that_serves_and_ends_again_and_again_ends_all() -> None:
    tried = Tried(["serves"], ["ends", "ends"], max_restarts=1)
    with pytest.raises(EngineLost, match="HTTP worker 1 cannot go on"):
        await tried.run()
    assert tried.num_starts == [1, 2]


async def test_one_that_never_served_ends_all() -> None:
    tried = Tried(["serves"], ["fails"], max_restarts=5)
    with pytest.raises(StartupError, match="HTTP worker 1 could not start"):
        await tried.run()
