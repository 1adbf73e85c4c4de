"""A client of the app's WebSockets, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx

from millstream.api.app import build_app
from millstream.api.context import ServerContext
from millstream.settings import Settings

ENDINGS = ("response.completed", "response.incomplete", "response.failed", "error")


class Refusal(Exception):
    """The HTTP response that was given instead of a WebSocket."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(response.text)
        self.response = response

    @property
    def code(self) -> str:
        code: str = self.response.json()["error"]["code"]
        return code


class Line:
    """One WebSocket. accepted: the headers and the subprotocol it was taken with."""

    def __init__(self, app: Any, scope: dict[str, Any]) -> None:
        self._to_app: asyncio.Queue[Any] = asyncio.Queue()
        self._from_app: asyncio.Queue[Any] = asyncio.Queue()
        self.accepted: Any = None
        self.is_reading = asyncio.Event()
        self.is_reading.set()
        self._task = asyncio.create_task(app(scope, self._to_app.get, self._send))

    async def open(self, *, sent: Sequence[str] = ()) -> None:
        """Raises Refusal. sent: what the server finds there as soon as it has accepted."""
        await self._to_app.put({"type": "websocket.connect"})
        for message in sent:
            await self.say(message)
        first = await self._next()
        if first["type"] == "websocket.accept":
            self.accepted = first
            return
        assert first["type"] == "websocket.http.response.start", first
        body = await self._next()
        await self._task
        raise Refusal(
            httpx.Response(first["status"], headers=first["headers"], content=body["body"])
        )

    async def say(self, message: str | bytes) -> None:
        kind = "text" if isinstance(message, str) else "bytes"
        await self._to_app.put({"type": "websocket.receive", kind: message})

    async def create(self, **fields: Any) -> None:
        await self.say(json.dumps({"type": "response.create", "input": "x"} | fields))

    async def hear(self) -> Any:
        """The next event."""
        message = await self._next()
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])

    async def rest(self) -> list[Any]:
        """The events to the end of a response, or to an error."""
        events = [await self.hear()]
        while events[-1]["type"] not in ENDINGS:
            events.append(await self.hear())
        return events

    async def make(self, **fields: Any) -> Any:
        """The response that an event asks for."""
        await self.create(**fields)
        last = (await self.rest())[-1]
        assert last["type"] != "error", last
        return last["response"]

    async def refused(self, **fields: Any) -> Any:
        """The error that an event comes to."""
        await self.create(**fields)
        (event,) = await self.rest()
        assert event["type"] == "error"
        assert event["status"] >= 400
        return event["error"]

    async def closing(self) -> Any:
        """The code and the reason that the server ends the connection with."""
        message = await self._next()
        assert message["type"] == "websocket.close", message
        await self._task
        return message["code"], message["reason"]

    async def leave(self) -> None:
        self.is_reading.set()
        await self._to_app.put({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait_for(self._task, timeout=20)

    async def _next(self) -> Any:
        return await asyncio.wait_for(self._from_app.get(), timeout=20)

    async def _send(self, message: Any) -> None:
        await self.is_reading.wait()
        await self._from_app.put(message)


@asynccontextmanager
async def connected(
    context: ServerContext,
    *,
    path: str = "/v1/responses",
    query: str = "",
    headers: Sequence[tuple[str, str]] = (),
    protocols: Sequence[str] = (),
    sent: Sequence[str] = (),
    **settings: Any,
) -> AsyncIterator[Line]:
    """A WebSocket of a server with these settings. Raises Refusal."""
    if settings:
        context = replace(context, settings=Settings(served_model_name="fake", **settings))
    given = [("host", "test"), *headers]
    scope = {
        "type": "websocket",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given],
        "subprotocols": list(protocols),
        "extensions": {"websocket.http.response": {}},
        "state": {},
    }
    line = Line(build_app(context), scope)
    await line.open(sent=sent)
    try:
        yield line
    finally:
        await line.leave()
