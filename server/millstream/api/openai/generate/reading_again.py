"""Streams for those who come back: the events after the last one that they have.

Rules: whoever names an event beyond the end is refused, and is not left with a stream that says
nothing; while an answer is made, an event that is yet to come is waited for; what the store fails
to give now is told without a number, so that the client goes on from where it was.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import Response

from millstream.answering.replay import stored_events
from millstream.answering.runs import Run
from millstream.api.context import ServerContext
from millstream.api.openai.generate.queueing import with_positions
from millstream.api.wire.error_bodies import error_event
from millstream.api.wire.resuming import LAST_EVENT_ID, ResumeQuery
from millstream.api.wire.sse import EventStream
from millstream.errors import InvalidRequest, MillstreamError
from millstream.store.records import RUNNING, StoredResponse
from millstream.store.store import Store


def running_again(run: Run, query: ResumeQuery, context: ServerContext) -> Response:
    """The events of an answer that this server makes, and its place while it waits, where readers
    are told. Raises InvalidRequest."""
    return _again(
        with_positions(run.events.read(after=query.after), run.position),
        query,
        context,
        num_events=len(run.events),
        is_complete=run.events.is_complete,
    )


async def stored_again(
    store: Store, stored: StoredResponse, query: ResumeQuery, context: ServerContext
) -> Response:
    """The events of an answer that is complete, or that another server makes.

    Raises InvalidRequest, StoreFailed.
    """
    return _again(
        stored_events(store, stored.id, owner=stored.owner, after=query.after),
        query,
        context,
        num_events=await store.num_events(stored.id),
        is_complete=stored.status not in RUNNING,
    )


def _again(
    events: AsyncGenerator[bytes, None],
    query: ResumeQuery,
    context: ServerContext,
    *,
    num_events: int,
    is_complete: bool,
) -> Response:
    """num_events: how many there are to be read; more may come unless it is complete."""
    last = num_events - 1
    if query.after > last and is_complete:
        raise InvalidRequest(f"{query.said_by}: the last event is {last}", param=query.said_by)
    if is_complete and query.after == last and query.said_by == LAST_EVENT_ID:
        # Browsers connect again after any other answer, for ever (HTML standard, section 9.2.3).
        return Response(status_code=204)
    return EventStream(
        with_failure(events),
        on_end=lambda: None,
        ping_seconds=context.settings.ping_seconds,
        send_timeout=context.settings.send_timeout,
    )


async def with_failure(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The events; at the end one that says why they go no further, if they do not."""
    async with aclosing(events):
        try:
            async for frames in events:
                yield frames
        except MillstreamError as error:
            yield error_event(error)
