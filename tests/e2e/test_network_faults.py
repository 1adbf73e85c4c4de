"""Whatever a network does to one client, its request ends, and nobody else notices."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from .faulty_network import GENTLE, HARSH, faulty
from .harness import RunningServer
from .wire import DONE, LONG, messages, text_of

WAYS = pytest.mark.parametrize("to_server", [True, False], ids=["to server", "to client"])
TOKENS = 12


async def streamed(url: str, *, max_tokens: int, seconds: float) -> list[str]:
    """The events of an answer."""
    body: dict[str, Any] = {"messages": messages("Hello"), "stream": True, "temperature": 0}
    path = "/v1/chat/completions"
    async with httpx.AsyncClient(base_url=url, timeout=seconds) as client:
        response = await client.post(path, json=body | {"max_tokens": max_tokens})
    assert response.status_code == 200, response.text
    lines = response.text.splitlines()
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


@WAYS
@pytest.mark.parametrize("name", GENTLE)
async def test_a_slow_network_loses_nothing(
    name: str, to_server: bool, endless_server: RunningServer
) -> None:
    straight = endless_server.url
    expected = text_of(await streamed(straight, max_tokens=TOKENS, seconds=60))
    async with faulty(straight, GENTLE[name], to_server=to_server) as url:
        events = await streamed(url, max_tokens=TOKENS, seconds=60)
    assert events[-1] == DONE
    assert text_of(events) == expected


@WAYS
@pytest.mark.parametrize("name", HARSH)
async def test_a_network_that_breaks_ends_one_request(
    name: str, to_server: bool, endless_server: RunningServer
) -> None:
    straight = endless_server.url
    expected = text_of(await streamed(straight, max_tokens=TOKENS, seconds=60))
    async with faulty(straight, HARSH[name], to_server=to_server) as url:
        # A server that waits for the rest of a request says nothing; one that answers for minutes
        # is heard until the connection breaks.
        with pytest.raises(httpx.HTTPError):
            await streamed(url, max_tokens=LONG, seconds=0.5 if name == "timeout" else 60)
        await asyncio.to_thread(endless_server.wait_idle)
    assert text_of(await streamed(straight, max_tokens=TOKENS, seconds=60)) == expected
    endless_server.assert_clean_log()
