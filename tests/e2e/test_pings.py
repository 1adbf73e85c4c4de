"""Comments keep a silent stream open: while it waits in the queue, and while the engine is busy.

Both servers used here send a comment after 0.2 s of silence.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import pytest

from .harness import RunningServer
from .sdk import COLLECTORS, Collect
from .wire import DONE, open_stream


def test_comments_come_while_nothing_else_does(small_server: RunningServer) -> None:
    with small_server.paused_engine(), open_stream(small_server, max_tokens=3) as stream:
        assert stream.response.status_code == 200
        stream.wait_comments(3)
        small_server.engine().resume()
        assert stream.rest()[-1] == DONE


def test_comments_come_while_queued(endless_server: RunningServer) -> None:
    with ExitStack() as running:
        for _ in range(8):
            running.enter_context(open_stream(endless_server))
        with open_stream(endless_server, max_tokens=3) as queued:
            endless_server.wait_engine(num_running=8, num_waiting=1)
            queued.wait_comments(3)
            endless_server.wait_engine(num_running=8, num_waiting=1)
            running.close()
            assert queued.rest()[-1] == DONE


@pytest.mark.parametrize("collect", COLLECTORS, ids=lambda collect: collect.__name__)
def test_clients_ignore_comments(collect: Collect, small_server: RunningServer) -> None:
    collected: list[Any] = []

    def ask() -> None:
        collected.extend(collect(small_server.url, "Hello", temperature=0, max_tokens=6))

    asking = threading.Thread(target=ask, daemon=True)
    with small_server.paused_engine():
        asking.start()
        small_server.wait_open(1)
        # A second stream, opened later, is the clock: its fourth comment says that the client's
        # stream, as silent and for longer, has had some.
        with open_stream(small_server, max_tokens=1) as clock:
            clock.wait_comments(4)
    asking.join(timeout=60)
    text = "".join(chunk.choices[0].delta.content for chunk in collected)
    assert text == small_server.answer("Hello", max_tokens=6)
