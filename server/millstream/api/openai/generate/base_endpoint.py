"""What the endpoints that generate share: their places, their time and their response.

Order: body, places, prompt, engine, headers. Whatever can go wrong before the first token is an
HTTP status; after that it is one error event and no `[DONE]`.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from millstream.api.context import ServerContext
from millstream.api.openai.generate.answer import Identity
from millstream.api.openai.generate.started_answer import StartedAnswer
from millstream.api.wire.disconnect import ClientGone, unless_disconnected
from millstream.api.wire.json_body import read_json
from millstream.api.wire.sse import EventStream
from millstream.core.request import Request
from millstream.errors import InvalidRequest
from millstream.generation.choices import close_all
from millstream.intake.engine_request import choice_request
from millstream.intake.fields.delivery import DeliveryFields
from millstream.runtime.stream import TokenStream

# What proxies log for this; nobody is there to read it.
_CLIENT_GONE = 499

Fields = TypeVar("Fields", bound=DeliveryFields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """How many answers a body asks for, in its words. param: the field to change for fewer."""

    count: int
    asked: str
    param: str


class Endpoint(ABC, Generic[Fields]):
    """Answers the bodies of one API. Holds no state of its own. id_prefix: of its answers."""

    id_prefix: ClassVar[str]

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    @abstractmethod
    def _parse(self, body: dict[str, Any]) -> Fields:
        """The checked body. Raises InvalidRequest."""

    @abstractmethod
    def _places(self, fields: Fields) -> Places:
        """What it asks for."""

    @abstractmethod
    async def _start(
        self, fields: Fields, streams: Sequence[TokenStream], identity: Identity
    ) -> StartedAnswer:
        """Tokenises off the event loop and hands the requests to the engine."""

    async def __call__(self, http: HttpRequest) -> Response:
        settings = self._context.settings
        fields = await read_json(
            http,
            limit=settings.payload_limit,
            check=self._parse,
            threads=self._context.workers.bodies,
        )
        identity = self._identity(http)
        names = (identity.completion_id, http.state.request_id)
        streams = self._open(self._places(fields), names=names)
        try:
            self._limit_time(fields, streams)
            starting = streams[0].prepare(self._start(fields, streams, identity))
            answer = await unless_disconnected(http, starting)
        except ClientGone:
            close_all(streams)
            return Response(status_code=_CLIENT_GONE)
        except BaseException:
            close_all(streams)
            raise
        if not fields.stream:
            return await _whole(http, answer, streams)
        return EventStream(
            answer.events(),
            headers=answer.headers,
            on_end=lambda: close_all(streams),
            ping_seconds=settings.ping_seconds,
            send_timeout=settings.send_timeout,
        )

    def _limit_time(self, fields: DeliveryFields, streams: Sequence[TokenStream]) -> None:
        """Starts the clock: the smaller one of the client's and the server's limit, if any."""
        limits = (fields.timeout, self._context.settings.request_timeout)
        given = [limit for limit in limits if limit is not None]
        for stream in streams if given else ():
            stream.limit_time(min(given))

    def _identity(self, http: HttpRequest) -> Identity:
        return Identity(
            completion_id=f"{self.id_prefix}-{secrets.token_hex(16)}",
            model=self._context.settings.model_name,
            created=int(time.time()),
            fingerprint=self._context.fingerprint,
            tenant=getattr(http.state, "tenant", ""),
        )

    def _open(self, places: Places, *, names: Collection[str]) -> list[TokenStream]:
        """A place for each answer, all or none. names: what they can be cancelled by.

        Raises InvalidRequest if there never are so many.
        """
        engine = self._context.engine
        if places.count > engine.max_open:
            raise InvalidRequest(
                f"{places.asked}, more than the {engine.max_open} requests this server can hold",
                param=places.param,
            )
        return engine.open_many(places.count, names=names)


async def _whole(
    http: HttpRequest, answer: StartedAnswer, streams: Sequence[TokenStream]
) -> Response:
    try:
        response = await unless_disconnected(http, answer.whole())
        response.headers.update(answer.headers)
        return response
    except ClientGone:
        return Response(status_code=_CLIENT_GONE)
    finally:
        close_all(streams)


def start_all(
    streams: Sequence[TokenStream], firsts: Sequence[Request], identity: Identity
) -> None:
    """Hands the engine one request for each stream. firsts: of each prompt, that of its first
    answer; as many streams for each, those of the first prompt first."""
    per_prompt = len(streams) // len(firsts)
    tenant = f"{identity.tenant}:" if identity.tenant else ""
    # What is cached and who sent it is told by the usage, and by the time that an answer takes.
    firsts = [replace(first, cache_salt=tenant + first.cache_salt) for first in firsts]
    for index, stream in enumerate(streams):
        place, number = divmod(index, per_prompt)
        follows = streams[index - number].id if number else None
        stream.start(choice_request(firsts[place], stream.id, number, follows=follows))
