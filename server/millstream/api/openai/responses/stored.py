"""GET, DELETE and cancel of /v1/responses/{id}, and its input items.

Rule: what is unknown, deleted or somebody else's is the same 404.
"""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from millstream.answering.runs import Run
from millstream.api.context import ServerContext
from millstream.api.described.route import EVENTS, JSON, Operation
from millstream.api.openai.generate.reading_again import running_again, stored_again
from millstream.api.openai.responses.event_shapes import WaitingEvent
from millstream.api.openai.responses.history import not_found
from millstream.api.openai.responses.paging import item_list, read_page_query
from millstream.api.openai.responses.resource import with_output
from millstream.api.openai.responses.shapes import (
    DeletedResponse,
    ItemList,
    ResponseObject,
)
from millstream.api.wire.resuming import ResumeQuery, owners_of, read_resume_query
from millstream.errors import InvalidRequest
from millstream.store.records import RUNNING, StoredResponse

_PATH = "/v1/responses/{id}"

RETRIEVE_RESPONSE = Operation(
    path=_PATH,
    method="GET",
    summary="A stored response, or its events from any point on",
    description="With `stream=true`, its events after `starting_after`, or after the "
    "`Last-Event-ID` that a client sends who reads again; for responses made with `background` or "
    "`X-Resumable`. One of a chat says its place in the queue as well. After the last of all, "
    "`Last-Event-ID` is answered with 204.",
    answers={200: {JSON: ResponseObject, EVENTS: WaitingEvent}, 204: {}},
    errors=(400, 404, 503),
)
DELETE_RESPONSE = Operation(
    path=_PATH,
    method="DELETE",
    summary="Deletes a stored response, with its items and events",
    answers={200: {JSON: DeletedResponse}},
    errors=(404, 503),
)
CANCEL_RESPONSE = Operation(
    path=f"{_PATH}/cancel",
    method="POST",
    summary="Ends a response that is being made; what was said until then is kept",
    answers={200: {JSON: ResponseObject}},
    errors=(400, 404, 503),
)
LIST_INPUT_ITEMS = Operation(
    path=f"{_PATH}/input_items",
    method="GET",
    summary="What a stored response was asked",
    answers={200: {JSON: ItemList}},
    errors=(400, 404, 503),
)


class StoredResponses:
    """The endpoints. Hold no state of their own."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def retrieve(self, http: HttpRequest) -> Response:
        query = read_resume_query(http)
        run = self._run(http)
        if run is None:
            stored = await self._stored(http)
            if query.is_streamed:
                return await self._replay(stored, query)
            return JSONResponse(await self._shown(stored))
        if not query.is_streamed:
            return JSONResponse(run.snapshot())
        if not run.is_replayed:
            raise _not_replayed()
        return running_again(run, query, self._context)

    async def delete(self, http: HttpRequest) -> Response:
        store, run = self._context.store, self._run(http)
        if run is not None:
            run.cancel()
            await run.settled()
        response_id = http.path_params["id"]
        for owner in owners_of(http):
            if store is not None and await store.delete_response(response_id, owner=owner):
                return JSONResponse({"id": response_id, "object": "response", "deleted": True})
        raise not_found("response", response_id, param="id")

    async def cancel(self, http: HttpRequest) -> Response:
        """Raises InvalidRequest for a response that another server makes."""
        run = self._run(http)
        if run is not None:
            run.cancel()
            return JSONResponse(await run.ended())
        stored = await self._stored(http)
        if stored.status in RUNNING:
            raise InvalidRequest("this response is being made by another server", param="id")
        return JSONResponse(await self._shown(stored))

    async def input_items(self, http: HttpRequest) -> Response:
        query = read_page_query(http)
        stored = await self._stored(http)
        assert self._context.store is not None, "something is stored"
        page = await self._context.store.inputs(
            stored.id,
            owner=stored.owner,
            after=query.after,
            limit=query.limit,
            is_descending=query.is_descending,
        )
        return JSONResponse(item_list(page))

    def _run(self, http: HttpRequest) -> Run | None:
        response_id = http.path_params["id"]
        found = (self._context.runs.find(response_id, owner=owner) for owner in owners_of(http))
        return next((run for run in found if run is not None), None)

    async def _stored(self, http: HttpRequest) -> StoredResponse:
        response_id, store = http.path_params["id"], self._context.store
        for owner in owners_of(http):
            found = None if store is None else await store.response(response_id, owner=owner)
            if found is not None and found.kind == "response":
                return found
        raise not_found("response", response_id, param="id")

    async def _shown(self, stored: StoredResponse) -> dict[str, object]:
        assert self._context.store is not None, "something is stored"
        outputs = await self._context.store.outputs(stored.id, owner=stored.owner)
        return with_output(stored.resource, [item.data for item in outputs])

    async def _replay(self, stored: StoredResponse, query: ResumeQuery) -> Response:
        assert self._context.store is not None, "something is stored"
        if not stored.is_resumable:
            raise _not_replayed()
        return await stored_again(self._context.store, stored, query, self._context)


def _not_replayed() -> InvalidRequest:
    return InvalidRequest(
        "stream: the events of this response are not kept; it was made without background and "
        "without X-Resumable",
        param="stream",
        code="events_not_kept",
    )
