"""GET /health/live and /health/ready, for whoever starts, watches and routes to servers.

Rules: a server is alive as long as it answers and its engine may come back; nothing outside of it
counts, since a restart would not help. It is ready when it takes requests and its steps go on. A
store that fails is told and does not count: what needs no store is served all the same, and a
database that several servers share would take them all away at once.
"""

from __future__ import annotations

from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from millstream.api.context import ServerContext
from millstream.api.described.route import JSON, Handler, Operation
from millstream.api.status.health import StartProgress, start_progress
from millstream.api.wire.closed_shapes import closed
from millstream.runtime.state import State


@closed
class Live(TypedDict):
    """status: failed when the engine has ended for good, and the server is about to."""

    status: Literal["live", "failed"]


@closed
class Ready(TypedDict):
    """seconds_since_step: how long requests have been in the engine without news from it; null if
    there are none. store: off if nothing is kept. start: how far it is; null unless one is made."""

    status: State
    seconds_since_step: float | None
    store: Literal["ok", "failing", "off"]
    start: StartProgress | None


LIVE = Operation(
    path="/health/live",
    method="GET",
    summary="Whether the server is worth waiting for",
    description="200 while the server answers, also while the model loads, the engine restarts or "
    "requests are drained; 503 when the engine has ended for good.",
    answers={200: {JSON: Live}, 503: {JSON: Live}},
    is_open=True,
    is_probe=True,
)
READY = Operation(
    path="/health/ready",
    method="GET",
    summary="Whether requests are to be sent here",
    description="200 when requests are served; 503 while the model loads, with how far it is, "
    "while the engine restarts or is stuck in a step, and from the first signal to end on.",
    answers={200: {JSON: Ready}, 503: {JSON: Ready}},
    is_open=True,
    is_probe=True,
)


def live(context: ServerContext) -> Handler:
    async def answer(request: Request) -> Response:
        has_failed = context.engine.state is State.FAILED
        status: Literal["live", "failed"] = "failed" if has_failed else "live"
        return JSONResponse(Live(status=status), status_code=503 if has_failed else 200)

    return answer


def ready(context: ServerContext) -> Handler:
    async def answer(request: Request) -> Response:
        engine, store = context.engine, context.store
        silence = engine.silence
        kept = "off"
        if store is not None:
            kept = "failing" if store.is_failing else "ok"
        body = {
            "status": engine.state.value,
            "seconds_since_step": None if silence is None else round(silence, 3),
            "store": kept,
            "start": start_progress(engine),
        }
        return JSONResponse(body, status_code=200 if engine.state is State.READY else 503)

    return answer
