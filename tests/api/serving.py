"""Servers that differ in their settings, over one engine without a model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from millstream.api.context import ServerContext
from millstream.runtime.supervised import supervised_client
from millstream.runtime.thread_host import ThreadHost
from millstream.settings import Settings
from millstream.text.chat_prompt import ChatFormatter
from millstream.text.parsing.answer_reader import AnswerReader
from millstream.text.vocabulary import Vocabulary
from millstream.workers.workers import Workers
from tests.api.conftest import END, LetterTemplate, RecordingRunner
from tests.api.described_transport import CheckedTransport

Serve = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def context(byte_tokenizer: Tokenizer) -> AsyncIterator[ServerContext]:
    engine = supervised_client(
        ThreadHost(build_runner=RecordingRunner, max_running=4),
        max_running=4,
        max_waiting=2,
        engine_timeout=60,
    )
    workers = Workers()
    engine.start()
    try:
        await engine.wait_ready()
        yield ServerContext(
            settings=Settings(served_model_name="fake"),
            engine=engine,
            chat=ChatFormatter(LetterTemplate(), byte_tokenizer),
            tokenizer=byte_tokenizer,
            vocabulary=Vocabulary(byte_tokenizer),
            parsers=AnswerReader(),
            workers=workers,
            stop_token_ids=(END,),
            fingerprint="f",
        )
        assert engine.num_open == 0, "a request kept its place"
    finally:
        await engine.stop()
        await workers.stop()


@pytest.fixture
def serve(context: ServerContext) -> Serve:
    """A client of an app with the given settings."""

    def client(**settings: Any) -> httpx.AsyncClient:
        chosen = Settings(served_model_name="fake", **settings)
        transport = CheckedTransport(replace(context, settings=chosen))
        return httpx.AsyncClient(transport=transport, base_url="http://test")

    return client
