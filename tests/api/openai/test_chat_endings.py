"""The route over a fake engine: failures, refusals and time limits; nothing keeps its place."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.api.conftest import Api


async def test_one_failing_choice_fails_them_all(api: Api) -> None:
    api.runner.is_failing = True
    response = await api.post(n=3)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "step_failed"
    api.runner.is_failing = True
    response = await api.post(n=3, stream=True)
    assert response.status_code == 200
    assert response.text.count("data: ") == 1
    assert '"code": "step_failed"' in response.text
    assert "[DONE]" not in response.text
    assert await api.answer(n=3)


async def test_constraints_that_forbid_everything_are_the_clients(api: Api) -> None:
    api.runner.forbids_all = True
    response = await api.post()
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "no_token_allowed"


async def test_all_places_or_none(api: Api) -> None:
    streams = api.engine.open_many(4)
    response = await api.post(n=3)
    assert response.status_code == 429
    assert api.engine.num_open == 4
    assert await api.answer(n=2)
    for stream in streams:
        stream.close()
    assert await api.answer(n=6)


async def test_a_time_limit_of_the_request_is_the_smaller_one(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def spy(delay: float, callback: Any, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        limits.append(delay)
        return call_later(delay, callback, *args, **kwargs)

    monkeypatch.setattr(loop, "call_later", spy)
    await api.answer(timeout=50)
    await api.answer(timeout=500)
    await api.answer()
    assert [limit for limit in limits if limit >= 50] == [50, 100, 100]
    response = await api.post(timeout=1e-9)
    assert response.status_code == 504
