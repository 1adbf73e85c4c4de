"""POST /v1/chat/completions/{id}/cancel and /v1/completions/{id}/cancel.

Rules: a request is known by the id of its completion, which is in each of its events, and by its
`x-request-id`, which its client chose or reads in the headers before the first event. It is known
while it has its places, from before it is tokenised until it ends, so nothing is kept here. Who
knows the id of a completion may cancel it, since it is 128 random bits; by an `x-request-id`, which
can be guessed, only its owner may. All of an owner's that share an id are cancelled.
"""

from __future__ import annotations

from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from millstream.api.context import ServerContext
from millstream.api.described.route import JSON, Handler, Operation
from millstream.api.wire.closed_shapes import closed
from millstream.api.wire.error_bodies import shown
from millstream.api.wire.owned_names import is_id, owned_name
from millstream.api.wire.resuming import owners_of
from millstream.errors import NotFound
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
        errors=(400, 404, 408, 413, 415),
    )


CANCEL_CHAT = _operation("/v1/chat/completions/{id}/cancel")
CANCEL_COMPLETION = _operation("/v1/completions/{id}/cancel")


def cancel(context: ServerContext) -> Handler:
    """One handler for both routes: an id says by itself whose it is."""

    async def answer(http: Request) -> Response:
        await _read_body(http, context)
        request_id = http.path_params["id"]
        names = [owned_name(owner, request_id) for owner in owners_of(http)]
        if not (is_id(request_id) and any(map(context.engine.cancel, (request_id, *names)))):
            raise NotFound(
                f"no request with the id {shown(request_id)} is running or waiting",
                param="id",
                code="request_not_found",
            )
        return JSONResponse(Cancelled(id=request_id, object="request.cancelled", cancelled=True))

    return answer


async def _read_body(http: Request, context: ServerContext) -> None:
    """Raises InvalidRequest for a field: there are none. No body is needed."""
    headers = http.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    await context.read_body(http, _check_body)


def _check_body(body: dict[str, Any]) -> None:
    for name in body:
        raise unknown_field(name)
