"""Whose a request is, as the application says in which the server is mounted.

Rules: asked once for each request and WebSocket, before anything of the body is read; what it
raises lets nobody in; a name is known to nobody but its digest.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from hashlib import sha256

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from millstream.api.context import OwnerFunction
from millstream.api.wire.error_bodies import error_response
from millstream.errors import InvalidRequest, MillstreamError, Unauthorized

log = logging.getLogger(__name__)

_NOBODY = "it is not known whose this request is"
_CODE = "unknown_owner"


class KnowOwner:
    """Handlers find the owner as `request.state.tenant`. is_open: whether it needs none.

    Answers 401 where there is no owner, or what an HTTPException of the function says.
    """

    def __init__(
        self, app: ASGIApp, *, owner: OwnerFunction, is_open: Callable[[Scope], bool]
    ) -> None:
        self._app = app
        self._owner = owner
        self._is_async = inspect.iscoroutinefunction(owner) or inspect.iscoroutinefunction(
            getattr(owner, "__call__", None)  # noqa: B004, an object may be called too
        )
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_open(scope):
            try:
                name = await self._ask(HTTPConnection(scope))
            except MillstreamError as error:
                await error_response(error)(scope, receive, send)
                return
            digest = sha256(f"owner {name}".encode()).hexdigest()
            scope.setdefault("state", {})["tenant"] = digest
        await self._app(scope, receive, send)

    async def _ask(self, connection: HTTPConnection) -> str:
        """Raises MillstreamError if it is nobody's who may use the server."""
        try:
            name = await self._call(connection)
            if name is not None and not isinstance(name, str):
                raise TypeError(f"owner() gives a str or None, not {type(name).__name__}")
        except HTTPException as error:
            raise _refusal(error) from error
        except MillstreamError:
            raise
        except Exception as error:
            log.warning("the owner of a request is not known: owner() has failed", exc_info=True)
            raise Unauthorized(_NOBODY, code=_CODE) from error
        if not name:
            raise Unauthorized(_NOBODY, code=_CODE)
        return name

    async def _call(self, connection: HTTPConnection) -> object:
        if self._is_async:
            result = self._owner(connection)
        else:
            # It may wait for a database, and all other requests would with it.
            result = await run_in_threadpool(self._owner, connection)
        return await result if inspect.isawaitable(result) else result


def _refusal(error: HTTPException) -> MillstreamError:
    """What the function wants to be answered."""
    if error.status_code == Unauthorized.status:
        return Unauthorized(str(error.detail), code=_CODE)
    refusal = InvalidRequest(str(error.detail))
    refusal.status = error.status_code
    return refusal
