"""What is left of a key's limits, in the headers of every answer that was asked for with it.

Sources: OpenAI's guide to rate limits (`x-ratelimit-*`, durations like `1m2.5s`), and Anthropic's
(`anthropic-ratelimit-*`, moments in RFC 3339).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millstream.api.wire.messages_errors import speaks_messages
from millstream.api.wire.request_log import record_of
from millstream.quotas.limits import Allowance
from millstream.quotas.quota import Quota

QUOTA_STATE = "millstream_quota"
"""Where the state of a request has the quota of its key."""

_FACTS = ("limit", "remaining", "reset")
LIMIT_HEADERS = (
    *(f"x-ratelimit-{fact}-{kind}" for kind in ("requests", "tokens") for fact in _FACTS),
    *(f"anthropic-ratelimit-{kind}-{fact}" for kind in ("requests", "tokens") for fact in _FACTS),
)


class TellLimits:
    """Adds the headers to what a route answers that makes answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        quota: Quota | None = scope.get("state", {}).get(QUOTA_STATE)
        if quota is None or scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_limits(message: Message) -> None:
            record = record_of(scope)
            if message["type"] == "http.response.start" and record and record.is_for_answer:
                headers = MutableHeaders(scope=message)
                for name, value in _headers(quota, is_messages=speaks_messages(scope)):
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, send_with_limits)


def _headers(quota: Quota, *, is_messages: bool) -> Iterator[tuple[str, str]]:
    for kind, allowance in (("requests", quota.requests), ("tokens", quota.tokens)):
        if allowance is None:
            continue
        for fact, value in zip(_FACTS, _values(allowance, is_messages=is_messages), strict=True):
            yield (
                (
                    f"anthropic-ratelimit-{kind}-{fact}"
                    if is_messages
                    else f"x-ratelimit-{fact}-{kind}"
                ),
                value,
            )


def _values(allowance: Allowance, *, is_messages: bool) -> tuple[str, str, str]:
    """In the order of _FACTS."""
    seconds = allowance.reset_seconds
    reset = _moment(seconds) if is_messages else _duration(seconds)
    return str(allowance.limit), str(allowance.remaining), reset


def _moment(seconds: float) -> str:
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _duration(seconds: float) -> str:
    """A time as `6m0s`, `1.5s` or `120ms`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{int(minutes)}m{text}" if minutes else text
