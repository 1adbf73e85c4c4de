"""POST /v1/chat/completions/{id}/cancel and /v1/completions/{id}/cancel.

Rules: a request is known by the id of its completion, which is in each of its events, and by its
`x-request-id`, which its client chose or reads in the headers before the first event. It is known
while it has its places, from before it is tokenised until it ends, so nothing is kept here. Who
knows the id of a completion may cancel it, since it is 120 random bits or more; by an
`x-request-id`, which can be guessed, only its owner may. All of an owner's that share an id are
cancelled, whichever HTTP workers have them.
"""

from __future__ import annotations

from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from millstream.api.context import ServerContext
from millstream.api.described.route import JSON, Handler, Operation
from millstream.api.peers.asking import does_any
from millstream.api.wire.closed_shapes import closed
from millstream.api.wire.error_bodies import shown
from millstream.api.wire.forwarded import is_forwarded
from millstream.api.wire.owned_names import is_id, owned_name
from millstream.api.wire.resuming import owners_of
from millstream.errors import NotFound, WorkerUnavailable
from millstream.intake.known_fields import unknown_field


@closed
class Cancelled(TypedDict):
    """id: as it was sent."""

    id: str
    object: Literal["request.cancelled"]
    cancelled: Literal[True]


def _operation(path: str) -> Operation:
    return Operation(
        path=path,
        method="POST",
        summary="Ends a request, running or waiting",
        description="By the id of its completion or by its `X-Request-Id`. The request itself ends "
        "with status 499, or with an error event if its stream has begun.",
        answers={200: {JSON: Cancelled}},
        errors=(400, 404, 408, 413, 415, 503),
    )


CANCEL_CHAT = _operation("/v1/chat/completions/{id}/cancel")
CANCEL_COMPLETION = _operation("/v1/completions/{id}/cancel")


def cancel(context: ServerContext) -> Handler:
    """One handler for both routes: an id says by itself whose it is."""

    async def answer(http: Request) -> Response:
        await _read_body(http, context)
        request_id = http.path_params["id"]
        if not (is_id(request_id) and await _cancel(http, context, request_id)):
            raise NotFound(
                f"no request with the id {shown(request_id)} is running or waiting",
                param="id",
                code="request_not_found",
            )
        return JSONResponse(Cancelled(id=request_id, object="request.cancelled", cancelled=True))

    return answer


async def _cancel(http: Request, context: ServerContext, request_id: str) -> bool:
    """Whether there was something to cancel, here or at another worker. Raises
    WorkerUnavailable."""
    engine, peers, path = context.engine, context.peers, f"/v1/chat/completions/{request_id}/cancel"
    if engine.cancel(request_id):
        return True
    names = [owned_name(owner, request_id) for owner in owners_of(http)]
    is_known_here = any(map(engine.cancel, names))
    if peers is None or is_forwarded(http.scope):
        return is_known_here
    maker = peers.other_maker(request_id)
    if maker is not None and await does_any(peers, [maker], http, path=path):
        return True
    # A name that its client chose, as it may have for several requests.
    try:
        return await does_any(peers, peers.others, http, path=path) or is_known_here
    except WorkerUnavailable:
        if not is_known_here:
            raise
        return True


async def _read_body(http: Request, context: ServerContext) -> None:
    """Raises InvalidRequest for a field: there are none. No body is needed."""
    headers = http.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    await context.read_body(http, _check_body)


def _check_body(body: dict[str, Any]) -> None:
    for name in body:
        raise unknown_field(name)
