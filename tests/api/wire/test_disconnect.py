"""Who is told what when the client of an unstreamed request leaves, or cannot be watched."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from millstream.api.wire.disconnect import ClientGone, unless_disconnected


async def forever() -> None:
    await asyncio.Event().wait()


async def at_once() -> str:
    return "done"


def request_that(*, leaves: bool) -> Request:
    """A request whose channel says that the client has left, or fails."""

    async def receive() -> Message:
        if leaves:
            return {"type": "http.disconnect"}
        raise LookupError("planted")

    return Request({"type": "http"}, receive)


async def test_work_ends_with_its_client() -> None:
    with pytest.raises(ClientGone):
        await unless_disconnected(request_that(leaves=True), forever())


@pytest.mark.parametrize("leaves", [False, True])
async def test_work_that_is_done_counts(leaves: bool) -> None:
    assert await unless_disconnected(request_that(leaves=leaves), at_once()) == "done"


async def test_a_channel_that_fails_is_no_client_that_left() -> None:
    with pytest.raises(LookupError, match="planted"):
        await unless_disconnected(request_that(leaves=False), forever())
