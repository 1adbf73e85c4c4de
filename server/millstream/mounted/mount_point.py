"""The application at the path where somebody mounts it, which is known by the first request.

Rules: outside of the lifespan everything is refused; a path is given whole, as `--root-path` wants
it, whether or not a proxy took a part of it away; nobody outside says whose a request is, except
by `owner`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from millstream.api.guards.limits import QUOTA_STATE
from millstream.api.wire.error_bodies import error_response
from millstream.api.wire.request_log import LABEL_STATE
from millstream.api.wire.resuming import SESSION_STATE
from millstream.errors import EngineUnavailable

_OURS = ("tenant", "request_id", "record", SESSION_STATE, QUOTA_STATE, LABEL_STATE)
"""What the guards leave in the state of a request; the application outside may use the names."""
_MAX_ROOTS = 16  # a mount whose path has parameters has any number


class MountPoint:
    """An ASGI application; `open()` and `close()` say whether there is one behind it."""

    def __init__(self) -> None:
        self._app_at: Callable[[str], ASGIApp] | None = None

    def open(self, make_app: Callable[[str], ASGIApp]) -> None:
        """make_app: makes the application for a root path, which may be empty."""
        self._app_at = lru_cache(maxsize=_MAX_ROOTS)(make_app)

    def close(self) -> None:
        self._app_at = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = {k: v for k, v in scope.get("state", {}).items() if k not in _OURS}
        root = scope.get("root_path", "").rstrip("/")
        scope = {**scope, "path": _whole_path(scope, root), "state": state}
        if self._app_at is None:
            error = EngineUnavailable("the chat server does not run; is its lifespan entered?")
            await error_response(error)(scope, receive, send)
            return
        await self._app_at(root)(scope, receive, send)


def _whole_path(scope: Scope, root: str) -> str:
    """The path with what is before the outermost application, which a proxy may have taken away."""
    path: str = scope["path"]
    outer: str = scope.get("app_root_path", "").rstrip("/")
    inner = root.removeprefix(outer)
    if outer and not f"{path}/".startswith(f"{root}/") and f"{path}/".startswith(f"{inner}/"):
        return outer + path
    return path
