"""Limits hold while a request is prepared: time, leaving, cancelling, and the server's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tokenizers import Tokenizer

from millstream.errors import ShuttingDown
from tests.api.conftest import SETTINGS, Api, LetterTemplate, RecordingRunner, serve

PATHS = {"chat": "/v1/chat/completions", "text": "/v1/completions"}


class EndlessTemplate(LetterTemplate):
    """Never ends if it is told to."""

    is_endless = False

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        while self.is_endless:
            pass
        return super().apply_chat_template(conversation, **options)


SLOW_SCHEMA = {
    "type": "string",
    "allOf": [{"pattern": f".*{letter}.{{10}}"} for letter in "abcdefghijklmnopqrst"],
}
ENDLESS = [
    pytest.param("chat", {"messages": [{"role": "user", "content": "!"}]}, id="template"),
    pytest.param("chat", {"guided_json": SLOW_SCHEMA}, id="schema"),
    pytest.param("text", {"prompt": "!", "guided_json": SLOW_SCHEMA}, id="completion"),
]


class Scene:
    def __init__(self, api: Api, template: EndlessTemplate) -> None:
        self.api, self.template = api, template

    async def ask(self, kind: str, fields: dict[str, Any], **more: Any) -> tuple[int, str]:
        """Status and code of a request that takes for ever to prepare."""
        response = await self.api.ask("POST", PATHS[kind], json=self.body(kind, fields) | more)
        return response.status_code, response.json()["error"]["code"]

    def body(self, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        self.template.is_endless = "guided_json" not in fields
        messages = {"messages": [{"role": "user", "content": "!"}]} if kind == "chat" else {}
        return messages | fields

    async def prepares(self, num: int = 1) -> None:
        """Waits until so many requests are being prepared."""
        while self.api.engine.num_open < num:  # noqa: ASYNC110, places set no event
            await asyncio.sleep(0.001)

    async def check_all_is_well(self) -> None:
        """Every place and every thread is free again."""
        self.template.is_endless = False
        for _ in range(6):
            await self.api.answer(max_tokens=1)
        assert self.api.engine.num_open == 0


@pytest.fixture
async def scene(byte_tokenizer: Tokenizer) -> AsyncIterator[Scene]:
    template = EndlessTemplate()
    async with serve(RecordingRunner(), byte_tokenizer, SETTINGS, template=template) as api:
        async with asyncio.timeout(60):
            yield Scene(api, template)
        template.is_endless = False


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("kind", "fields"), ENDLESS)
async def test_time_is_limited(
    scene: Scene, kind: str, fields: dict[str, Any], stream: bool
) -> None:
    for _ in range(5):  # more than there are threads
        assert await scene.ask(kind, fields, timeout=0.1, stream=stream) == (504, "timeout")
    await scene.check_all_is_well()


@pytest.mark.parametrize(("kind", "fields"), ENDLESS)
async def test_leaving_ends_it(scene: Scene, kind: str, fields: dict[str, Any]) -> None:
    body, engine = scene.body(kind, fields), scene.api.engine
    for stream in (False, True):
        status = await scene.api.leave(
            PATHS[kind], body | {"stream": stream}, when=lambda: engine.num_open == 1
        )
        assert status == 499
        assert engine.num_open == 0
    await scene.check_all_is_well()


@pytest.mark.parametrize(("kind", "fields"), ENDLESS)
async def test_it_can_be_cancelled(scene: Scene, kind: str, fields: dict[str, Any]) -> None:
    body = scene.body(kind, fields) | {"n": 2}
    asking = asyncio.create_task(
        scene.api.ask("POST", PATHS[kind], json=body, headers={"x-request-id": "mine"})
    )
    await scene.prepares(2)
    cancelled = await scene.api.ask("POST", f"{PATHS[kind]}/mine/cancel")
    assert cancelled.status_code == 200
    assert (await asking).status_code == 499
    await scene.check_all_is_well()


@pytest.mark.parametrize(("kind", "fields"), ENDLESS)
async def test_a_drain_ends_it(scene: Scene, kind: str, fields: dict[str, Any]) -> None:
    asking = asyncio.create_task(scene.ask(kind, fields))
    await scene.prepares()
    await scene.api.engine.drain(grace=0)
    assert await asking == (503, ShuttingDown.code)


async def test_those_who_wait_for_a_thread_keep_no_place_either(scene: Scene) -> None:
    endless = {"messages": [{"role": "user", "content": "!"}]}
    # More than there are threads.
    asking = [scene.ask("chat", endless, timeout=0.2) for _ in range(6)]
    assert await asyncio.gather(*asking) == [(504, "timeout")] * 6
    await scene.check_all_is_well()
