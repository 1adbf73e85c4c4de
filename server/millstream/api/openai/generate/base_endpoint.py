"""What the endpoints that generate share: their places, their time and their response.

Order: body, places, prompt, engine, headers. Whatever can go wrong before the first token is an
HTTP status; after that it is one error event and no `[DONE]`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from millstream.api.context import ServerContext
from millstream.api.openai.generate.answer import Identity
from millstream.api.openai.generate.reading_again import with_failure
from millstream.api.openai.generate.resumption import ResumableStreams
from millstream.api.openai.generate.started_answer import StartedAnswer
from millstream.api.wire.disconnect import ClientGone, nobody, unless_disconnected
from millstream.api.wire.error_bodies import mark_error_events
from millstream.api.wire.owned_names import owned_name
from millstream.api.wire.resuming import RESUMABLE_HEADER, asks_to_resume, owner_of
from millstream.api.wire.sse import EventStream
from millstream.errors import InvalidRequest
from millstream.generation.choices import close_all
from millstream.generation.places import Places, open_places, places_of
from millstream.intake.fields.delivery import DeliveryFields
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.completion import CompletionRequest
from millstream.runtime.stream import TokenStream
from millstream.store.store import Store

Fields = TypeVar("Fields", bound=ChatRequest | CompletionRequest)


class Endpoint(ABC, Generic[Fields]):
    """Answers the bodies of one API. Holds no state of its own. id_prefix: of its answers.

    ping: the data of the event that keeps a silent stream open; a comment does, if there is none.
    is_resumable: whether the API has a route to read a stream again.
    """

    id_prefix: ClassVar[str]
    ping: ClassVar[str | None] = None
    is_resumable: ClassVar[bool] = True

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._resumable = ResumableStreams(context)

    @abstractmethod
    def _parse(self, body: dict[str, Any]) -> Fields:
        """The checked body. Raises InvalidRequest."""

    @abstractmethod
    async def _start(
        self, fields: Fields, streams: Sequence[TokenStream], identity: Identity
    ) -> StartedAnswer:
        """Tokenises off the event loop and hands the requests to the engine."""

    def _places(self, fields: Fields) -> Places:
        """How many answers are asked for."""
        return places_of(fields)

    async def __call__(self, http: HttpRequest) -> Response:
        fields = await self._context.read_body(http, self._parse)
        return await self.answer(http, fields)

    async def answer(self, http: HttpRequest, fields: Fields) -> Response:
        """Answers a body that is read and checked."""
        settings = self._context.settings
        if fields.stream and settings.tgi_error_events:
            mark_error_events(http.scope)
        identity = self.identity(http)
        store = self._store_of_events(http, is_streamed=bool(fields.stream))
        names = (identity.completion_id, owned_name(identity.tenant, http.state.request_id))
        engine, quota = self._context.engine, self._context.quota_of(identity.tenant)
        streams = open_places(engine, self._places(fields), names=names, quota=quota)
        try:
            starting = self.begin(fields, streams, identity)
            answer = await unless_disconnected(http, starting)
            run = None
            if store is not None:
                run = await self._resumable.begin(
                    answer, streams, store=store, owner=identity.tenant
                )
        except ClientGone:
            close_all(streams)
            return nobody(http)
        except BaseException:
            close_all(streams)
            raise
        http.state.record.begin(answer.facts)
        if not fields.stream:
            return await answer.respond(http, streams)
        return EventStream(
            answer.events() if run is None else with_failure(run.events.read()),
            headers=answer.headers,
            on_end=lambda: close_all(streams) if run is None else None,
            ping=self.ping,
            ping_seconds=settings.ping_seconds,
            send_timeout=settings.send_timeout,
        )

    def _store_of_events(self, http: HttpRequest, *, is_streamed: bool) -> Store | None:
        """The store of the answer's events, if they are to be kept. Raises InvalidRequest."""
        if not asks_to_resume(http):
            return None
        if not self.is_resumable:
            raise InvalidRequest(
                f"{RESUMABLE_HEADER}: streams of this API cannot be read again",
                param=RESUMABLE_HEADER,
            )
        return self._resumable.check(is_streamed=is_streamed)

    async def begin(
        self, fields: Fields, streams: Sequence[TokenStream], identity: Identity
    ) -> StartedAnswer:
        """Begins the answer in places that were taken for it; closing them is the caller's."""
        self._limit_time(fields, streams)
        return await streams[0].prepare(self._start(fields, streams, identity))

    def _limit_time(self, fields: DeliveryFields, streams: Sequence[TokenStream]) -> None:
        """Starts the clock: the smaller one of the client's and the server's limit, if any."""
        limits = (fields.timeout, self._context.settings.request_timeout)
        given = [limit for limit in limits if limit is not None]
        for stream in streams if given else ():
            stream.limit_time(min(given))

    def identity(self, http: HttpRequest) -> Identity:
        """What a new answer is called, and whose it is."""
        return Identity(
            completion_id=self._context.answer_id(self.id_prefix, 32),
            model=self._context.settings.model_name,
            created=int(time.time()),
            fingerprint=self._context.fingerprint,
            tenant=owner_of(http),
            request_id=http.state.request_id,
        )
