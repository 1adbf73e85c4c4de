"""Clients of /ws, and what they put together of the frames they hear."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from millstream.api.context import ServerContext
from tests.api.openai.responses.conftest import (
    Desk,
    byte_tokenizer,
    desk,
    marked_tokenizer,
    talk,
)
from tests.api.socket_client import Line, connected

__all__ = ["Desk", "byte_tokenizer", "desk", "marked_tokenizer", "talk"]


class Chat:
    """One WebSocket at /ws."""

    def __init__(self, line: Line) -> None:
        self.line = line

    async def send(self, identifier: Any = 0, text: Any = "x", **fields: Any) -> None:
        await self.line.say(json.dumps({"id": identifier, "text": text} | fields))

    async def hear(self) -> Any:
        """The next frame. Whatever it says, it has an id and a text."""
        frame = await self.line.hear()
        assert isinstance(frame["text"], str)
        assert "id" in frame
        return frame

    async def frames(self) -> list[Any]:
        """Those to the end of an answer, or to an error."""
        frames = [await self.hear()]
        while not is_last(frames[-1]):
            frames.append(await self.hear())
        return frames

    async def answer(self, text: Any = "x", **fields: Any) -> str:
        """The text of an answer that ends well."""
        await self.send(0, text, **fields)
        frames = await self.frames()
        assert "error" not in frames[-1], frames[-1]
        return "".join(frame["text"] for frame in frames)

    async def refused(self, identifier: Any = 0, text: Any = "x", **fields: Any) -> Any:
        """The error that a frame comes to."""
        await self.send(identifier, text, **fields)
        frame = (await self.frames())[-1]
        assert frame["id"] == identifier
        assert frame["status"] >= 400
        return frame["error"]

    async def answers(self, count: int) -> dict[Any, list[Any]]:
        """The frames of so many answers, for each id."""
        found: dict[Any, list[Any]] = {}
        while sum(is_last(frame) for frames in found.values() for frame in frames) < count:
            frame = await self.hear()
            found.setdefault(frame["id"], []).append(frame)
        return found


def is_last(frame: Any) -> bool:
    return "finish_reason" in frame or "error" in frame


def text_of(frames: list[Any]) -> str:
    return "".join(frame["text"] for frame in frames)


async def settled(desk: Desk) -> None:
    """Waits until nothing is being made."""
    while len(desk.runs):
        await asyncio.gather(*(run.settled() for run in desk.runs))


@asynccontextmanager
async def chatting(context: ServerContext, query: str = "", **options: Any) -> AsyncIterator[Chat]:
    async with connected(context, path="/ws", query=query, **options) as line:
        yield Chat(line)
