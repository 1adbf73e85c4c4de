"""POST /v1/responses: an answer as items, whole, as a stream, or in the background."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from millstream.api.context import ServerContext
from millstream.api.described.route import EVENTS, JSON, Operation
from millstream.api.openai.generate.queueing import with_positions
from millstream.api.openai.generate.reading_again import with_failure
from millstream.api.openai.generate.started_answer import UNENFORCED_HEADER
from millstream.api.openai.responses.event_shapes import ResponseEvent
from millstream.api.openai.responses.maker import Asker, BegunResponse, ResponseMaker
from millstream.api.openai.responses.shapes import ResponseObject
from millstream.api.wire.disconnect import ClientGone, nobody, unless_disconnected
from millstream.api.wire.owned_names import owned_name
from millstream.api.wire.resuming import asks_to_resume, owner_of
from millstream.api.wire.sse import EventStream
from millstream.intake.responses.request import ResponseRequest, parse_response_request

CREATE_RESPONSE = Operation(
    path="/v1/responses",
    method="POST",
    summary="An answer as items, whole, as a stream, or in the background",
    description="With `stream`, the answer is events; the last one has the whole response. With "
    "`background`, or the header `X-Resumable: true`, the answer goes on when its reader leaves. "
    "The same path is a WebSocket.",
    request=ResponseRequest,
    answers={200: {JSON: ResponseObject, EVENTS: ResponseEvent}},
    errors=(404, 409, 429, 499, 503, 504),
)


class Responses:
    """The endpoint. Holds no state of its own."""

    def __init__(self, context: ServerContext, maker: ResponseMaker) -> None:
        self._context = context
        self._maker = maker

    async def create(self, http: HttpRequest) -> Response:
        request = await self._context.read_body(http, parse_response_request)
        asker = Asker(
            owner=owner_of(http),
            names=(owned_name(owner_of(http), http.state.request_id),),
            is_replayed=bool(request.background) or asks_to_resume(http),
            has_reader=bool(request.stream),
        )
        return await self.answer(http, request, asker)

    async def answer(self, http: HttpRequest, request: ResponseRequest, asker: Asker) -> Response:
        """Makes the response to a checked request, and answers with it as the request wants."""
        place = self._maker.take_place(request, asker)
        try:
            begun = await unless_disconnected(http, self._maker.begin(request, asker, place))
        except ClientGone:
            place.stream.close()
            return nobody(http)
        http.state.record.begin(begun.answer.facts)
        headers = {UNENFORCED_HEADER: ", ".join(begun.unenforced)} if begun.unenforced else {}
        if request.stream:
            return self._stream(begun, headers)
        if request.background:
            return JSONResponse(begun.run.snapshot(), headers=headers)
        return await _whole(http, begun, headers)

    def _stream(self, begun: BegunResponse, headers: dict[str, str]) -> Response:
        run, settings = begun.run, self._context.settings
        return EventStream(
            with_positions(with_failure(run.events.read()), run.position),
            headers=headers,
            on_end=lambda: None if run.is_replayed else run.cancel(),
            ping_seconds=settings.ping_seconds,
            send_timeout=settings.send_timeout,
        )


async def _whole(http: HttpRequest, begun: BegunResponse, headers: dict[str, str]) -> Response:
    """The whole response. Raises what it failed with."""
    run = begun.run
    try:
        response = await unless_disconnected(http, run.ended())
    except ClientGone:
        if not run.is_replayed:
            run.cancel()
        return nobody(http)
    if begun.answer.failure is not None:
        raise begun.answer.failure
    return JSONResponse(response, headers=headers)
