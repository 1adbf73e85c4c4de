"""GET /version, GET /load, and /ping, which is /health by the name that SageMaker asks for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from millstream.api.context import ServerContext
from millstream.api.described.route import JSON, Handler, Operation
from millstream.api.status.health import Health
from millstream.api.wire.closed_shapes import closed
from millstream.runtime.state import State
from millstream.version import __version__


@closed
class Version(TypedDict):
    version: str


@closed
class Load(TypedDict):
    """In answers, of which a request with `n` has several.

    server_load: those that hold a place. running, waiting: as the engine said last. free_places:
    how many more would be taken now.
    """

    server_load: int
    running: int
    waiting: int
    free_places: int


VERSION = Operation(
    path="/version",
    method="GET",
    summary="The version of this server",
    answers={200: {JSON: Version}},
    is_open=True,
)
LOAD = Operation(
    path="/load",
    method="GET",
    summary="How many requests there are and how many more may come",
    answers={200: {JSON: Load}},
    is_probe=True,
)


PINGS = tuple(
    Operation(
        path="/ping",
        method=method,
        summary="The same as /health",
        answers={200: {JSON: Health}, 503: {JSON: Health}},
        is_open=True,
        is_probe=True,
    )
    for method in ("GET", "POST")
)


async def version(http: Request) -> Response:
    return JSONResponse(Version(version=__version__))


def load(context: ServerContext) -> Handler:
    async def answer(http: Request) -> Response:
        engine = context.engine
        is_ready = engine.state is State.READY
        return JSONResponse(
            Load(
                server_load=engine.num_open,
                running=engine.statistics.num_running,
                waiting=engine.statistics.num_waiting,
                free_places=engine.max_open - engine.num_open if is_ready else 0,
            )
        )

    return answer
