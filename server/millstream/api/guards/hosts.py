"""The names by which the server may be called: the protection against DNS rebinding.

A web page can make its own name lead to this machine; its browser then takes the server for a part
of the page's site, and CORS does not apply. What it cannot choose is the `Host` header, which still
has the page's name.

Rules: decided from one header, before a request is routed; addresses and `localhost` always pass,
because no page of somebody else has such a name; ports do not matter; what is no host, or given
twice, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from millstream.api.wire.error_bodies import error_response
from millstream.errors import HostNotAllowed

_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]*)?")
_SHOWN_LENGTH = 100


class CheckHost:
    """Answers 403 for requests to another name. is_open: whether it may have any name.

    names: lower case; `*.example` is every name under `example`.

    Intentional: not Starlette's TrustedHostMiddleware, which answers with plain text.
    """

    def __init__(
        self, app: ASGIApp, *, names: Sequence[str], is_open: Callable[[Scope], bool]
    ) -> None:
        self._app = app
        self._names = frozenset(["localhost", *names])
        self._endings = (".localhost", *(name[1:] for name in names if name.startswith("*.")))
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_open(scope):
            await self._app(scope, receive, send)
            return
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(given) == 1 and self._is_allowed(given[0]):
            await self._app(scope, receive, send)
        else:
            await error_response(_refusal(given))(scope, receive, send)

    def _is_allowed(self, given: str) -> bool:
        found = _HOST.fullmatch(given)
        if found is None:
            return False
        if found["v6"] is not None:
            return _is_address(found["v6"])
        name = found["name"].lower().removesuffix(".")
        return name in self._names or name.endswith(self._endings) or _is_address(name)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _refusal(given: Sequence[str]) -> HostNotAllowed:
    shown = ", ".join(given)[:_SHOWN_LENGTH]
    return HostNotAllowed(
        f"this server is not called {shown!r}; --allowed-hosts names what it is called"
        if shown
        else "this server needs to know what it is called; send a Host header"
    )
