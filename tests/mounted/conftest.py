"""The demo model in memory, and applications around it on a real web server in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from millstream import ChatServer
from millstream.embedded.served_model import ServedModel
from millstream.workers.grammar_checks import GrammarChecks
from tests.embedded.conftest import model, one_thread, tokenizer
from tests.mounted.stories import leave_cold, share_storyteller, story_server

__all__ = ["model", "one_thread", "tokenizer"]

Make = Callable[..., ChatServer]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes servers with a storyteller for a model."""
    monkeypatch.setattr(ServedModel, "share", share_storyteller)
    monkeypatch.setattr(GrammarChecks, "warm", leave_cold)
    return story_server


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The URL of an application that runs on uvicorn as its users run it, with one worker."""
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                pytest.fail("the application did not start")
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=60)
        assert not thread.is_alive(), "the web server hangs"
