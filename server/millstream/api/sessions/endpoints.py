"""POST and DELETE /v1/sessions: a browser begins a session, or forgets the one it has."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from millstream.api.context import ServerContext
from millstream.api.described.route import JSON, Operation
from millstream.api.sessions.cookies import PATH, SessionCookies, set_cookie
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
    """The endpoints."""

    def __init__(self, context: ServerContext) -> None:
        self._settings = context.settings
        self._cookies = SessionCookies(context.session_secret)
        self._is_owner_told = context.owner is not None

    async def begin(self, http: HttpRequest) -> Response:
        self._check()
        is_new = not hasattr(http.state, "tenant")
        response = JSONResponse({"object": "session", "is_new": is_new})
        if is_new:
            self._set(response, self._cookies.make(), http)
        return response

    async def forget(self, http: HttpRequest) -> Response:
        self._check()
        response = JSONResponse({"object": "session.deleted", "deleted": True})
        self._set(response, "", http)
        return response

    def _check(self) -> None:
        """Raises InvalidRequest on a server that knows its users by something else."""
        if self._is_owner_told:
            raise InvalidRequest("the application around this server says whose a request is")
        if self._settings.api_key:
            raise InvalidRequest("this server has API keys; a key says whose a request is")

    def _set(self, response: Response, value: str, http: HttpRequest) -> None:
        path = quote(self._settings.root_path or "/")
        is_secure = http.url.scheme == "https"
        response.headers["Set-Cookie"] = set_cookie(value, path=path, is_secure=is_secure)
