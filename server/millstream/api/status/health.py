"""GET /health: whether requests are served, and how busy the server is."""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from millstream.api.context import ServerContext
from millstream.api.described.route import JSON, Handler, Operation
from millstream.api.wire.closed_shapes import closed
from millstream.runtime.client import EngineClient
from millstream.runtime.state import State


@closed
class ArchiveLoad(TypedDict):
    """The prefix cache on disk: num_blocks and num_bytes are of now, the others since the engine's
    start. num_skipped: blocks that were not kept because the disk was behind, or full. num_damaged:
    those that were not what was written, and were deleted."""

    num_blocks: int
    num_bytes: int
    num_read: int
    bytes_read: int
    num_written: int
    bytes_written: int
    num_skipped: int
    num_damaged: int


@closed
class EngineLoad(TypedDict):
    """Counts of now, but for num_preemptions and those of guesses, which are since the engine's
    start. num_drafts: how often an answer had guessed tokens in a step; num_draft_tokens: how many;
    num_accepted_tokens: how many were right. States are 0 for a model whose layers keep none.
    archive: null without --cache-folder. num_late_kernels: kernels that were compiled for the
    device since the engine was ready, which should be 0; null on a CPU, whose kernels are compiled
    before, and where Triton does not tell."""

    num_running: int
    num_waiting: int
    num_blocks: int
    num_blocks_used: int
    num_blocks_cached: int
    num_preemptions: int
    num_states: int
    num_states_used: int
    num_states_cached: int
    num_drafts: int
    num_draft_tokens: int
    num_accepted_tokens: int
    archive: ArchiveLoad | None
    num_late_kernels: int | None


@closed
class StartProgress(TypedDict):
    """How far an engine's start is: the step, and which part of it is done, if that is known."""

    step: str
    fraction: float | None


@closed
class Health(TypedDict):
    """open_requests: those that hold a place. engine: what it said last of its work. start: how far
    it is; null unless an engine is being started."""

    status: State
    open_requests: int
    engine: EngineLoad
    start: StartProgress | None


HEALTH = Operation(
    path="/health",
    method="GET",
    summary="Whether requests are served",
    description="200 when requests are served, 503 while loading, restarting, stuck in a step or "
    "shutting down.",
    answers={200: {JSON: Health}, 503: {JSON: Health}},
    is_open=True,
    is_probe=True,
)


def health(context: ServerContext) -> Handler:
    async def answer(request: Request) -> Response:
        engine = context.engine
        body = {
            "status": engine.state.value,
            "open_requests": engine.num_open,
            "engine": asdict(engine.statistics),
            "start": start_progress(engine),
        }
        return JSONResponse(body, status_code=200 if engine.state is State.READY else 503)

    return answer


def start_progress(engine: EngineClient) -> StartProgress | None:
    """What the engine has said of its start, while it is being made."""
    if (progress := engine.progress) is None:
        return None
    return StartProgress(step=progress.step, fraction=progress.fraction)
