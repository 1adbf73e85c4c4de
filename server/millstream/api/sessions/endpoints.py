"""POST and DELETE /v1/sessions: a browser begins a session, or forgets the one it has."""

from __future__ import annotations

from typing import Literal

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from millstream.api.described.route import JSON, Operation
from millstream.api.sessions.cookies import PATH
from millstream.api.sessions.request_session import RequestSession, session_of
from millstream.api.wire.closed_shapes import closed
from millstream.errors import InvalidRequest


@closed
class Session(TypedDict):
    """is_new: false if the request had one already."""

    object: Literal["session"]
    is_new: bool


@closed
class ForgottenSession(TypedDict):
    object: Literal["session.deleted"]
    deleted: Literal[True]


BEGIN_SESSION = Operation(
    path=PATH,
    method="POST",
    summary="Begins a session, whose responses and conversations nobody else can read",
    description="For browsers, on a server without API keys: the answer sets a cookie, and what is "
    "stored with it belongs to it. A cookie that the server knows already stays.",
    answers={200: {JSON: Session}},
    errors=(400,),
)
FORGET_SESSION = Operation(
    path=PATH,
    method="DELETE",
    summary="Lets the browser forget its session; what is stored stays until it is too old",
    answers={200: {JSON: ForgottenSession}},
    errors=(400,),
)


class Sessions:
    """The endpoints. Hold no state of their own."""

    async def begin(self, http: HttpRequest) -> Response:
        session = _session(http)
        is_new = session.begin()
        return session.mark(JSONResponse({"object": "session", "is_new": is_new}))

    async def forget(self, http: HttpRequest) -> Response:
        session = _session(http)
        session.forget()
        return session.mark(JSONResponse({"object": "session.deleted", "deleted": True}))


def _session(http: HttpRequest) -> RequestSession:
    """Raises InvalidRequest on a server that knows its users by something else."""
    session = session_of(http)
    if session is None:
        raise InvalidRequest(
            "a key, or the application around this server, says whose a request is"
        )
    return session
