"""What the endpoints that generate share: their places, their time and their response."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Collection, Coroutine, Sequence
from typing import Any, Protocol

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from millstream.api.choices import close_all
from millstream.api.context import ServerContext
from millstream.api.disconnect import ClientGone, unless_disconnected
from millstream.api.openai.answer import Identity
from millstream.api.openai.schema.delivery import DeliveryFields
from millstream.api.sse import EventStream
from millstream.errors import InvalidRequest
from millstream.runtime.client import EngineClient
from millstream.runtime.stream import TokenStream
from millstream.settings import Settings


class Deliverable(Protocol):
    """A started request on its way to the client."""

    async def whole(self) -> Response:
        """The one response with everything. Raises the failure that ended a choice."""
        ...

    def events(self) -> AsyncGenerator[bytes, None]:
        """The events of the stream. A failure is its last event."""
        ...


def open_places(
    engine: EngineClient, count: int, *, names: Collection[str], param: str, asked: str
) -> list[TokenStream]:
    """A place for each answer, all or none. names: what they can be cancelled by.

    Raises InvalidRequest that says what was `asked` in field `param` if there never are so many.
    """
    if count > engine.max_open:
        raise InvalidRequest(
            f"{asked}, more than the {engine.max_open} requests this server can hold", param=param
        )
    return engine.open_many(count, names=names)


async def respond(
    http: HttpRequest,
    settings: Settings,
    streams: Sequence[TokenStream],
    starting: Coroutine[Any, Any, Deliverable],
    *,
    is_streamed: bool,
) -> Response:
    """The response of a request that has its places; it gives them back however it ends."""
    try:
        answer = await starting
    except BaseException:
        close_all(streams)
        raise
    if is_streamed:
        return EventStream(
            answer.events(),
            on_end=lambda: close_all(streams),
            ping_seconds=settings.ping_seconds,
            send_timeout=settings.send_timeout,
        )
    try:
        return await unless_disconnected(http, answer.whole())
    except ClientGone:
        # 499 is what proxies log for this; nobody is there to read it.
        return Response(status_code=499)
    finally:
        close_all(streams)


def time_limit(fields: DeliveryFields, settings: Settings) -> float | None:
    """Seconds that an answer may take: the smaller one of the client's and the server's limit."""
    limits = (fields.timeout, settings.request_timeout)
    return min((limit for limit in limits if limit is not None), default=None)


def identity_of(completion_id: str, context: ServerContext) -> Identity:
    return Identity(
        completion_id=completion_id,
        model=context.settings.model_name,
        created=int(time.time()),
        fingerprint=context.fingerprint,
    )
