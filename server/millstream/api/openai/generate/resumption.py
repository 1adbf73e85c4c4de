"""Streams of completions that go on when their reader leaves, and can be read again.

Asked for with the header `X-Resumable: true`. Every event then has an id; GET on the completion
with `stream=true` goes on after the one that `starting_after` or `Last-Event-ID` names, also when
the answer is complete, or the server was restarted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from millstream.answering.archive import StoredEvents
from millstream.answering.event_log import EventLog, Readers, split_frames
from millstream.answering.runs import Run
from millstream.api.context import ServerContext
from millstream.api.described.route import EVENTS, JSON, Handler, Operation
from millstream.api.openai.generate.reading_again import running_again, stored_again
from millstream.api.openai.generate.started_answer import StartedAnswer
from millstream.api.wire.closed_shapes import closed
from millstream.api.wire.error_bodies import shown
from millstream.api.wire.resuming import owner_of, read_resume_query
from millstream.errors import InvalidRequest, NotFound, StoreFailed
from millstream.generation.choices import close_all
from millstream.runtime.stream import TokenStream
from millstream.store.records import EventBatch, StoredResponse
from millstream.store.store import Store


class ResumableStreams:
    """Makes completions whose events are kept."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    def check(self, *, is_streamed: bool) -> Store:
        """The store that will keep events. Raises InvalidRequest if there is none."""
        if self._context.store is None:
            raise InvalidRequest(
                "X-Resumable: this server keeps nothing (--store off)",
                param="X-Resumable",
                code="store_off",
            )
        if not is_streamed:
            raise InvalidRequest("X-Resumable: only with stream: true", param="X-Resumable")
        return self._context.store

    async def begin(
        self, answer: StartedAnswer, streams: Sequence[TokenStream], *, store: Store, owner: str
    ) -> Run:
        """Lets the answer be made, whoever reads it. Raises StoreFailed."""
        row = StoredResponse(
            id=answer.completion_id,
            owner=owner,
            kind="chat",
            created=int(time.time()),
            status="in_progress",
            previous_id=None,
            conversation_id=None,
            is_resumable=True,
            resource={},
        )
        await store.begin(row, [])
        log = EventLog(StoredEvents(store, row.id), readers=Readers.ANY)
        run = Run(row.id, log, owner=owner, is_replayed=True, snapshot=dict)
        self._context.runs.start(run, _make(answer, streams, run=run, store=store))
        return run


async def _make(
    answer: StartedAnswer, streams: Sequence[TokenStream], *, run: Run, store: Store
) -> None:
    """Writes the answer's events into the log. Its last one is there before the answer counts as
    complete: a server that is started in between sees that it is. Where the store fails, an event
    that says so is the last one."""
    log = run.events
    try:
        async with aclosing(answer.events()) as news:
            async for events in news:
                log.append(numbered(events, len(log)))
    except StoreFailed:
        pass  # it is the log's failure
    finally:
        close_all(streams)
        await log.settle()
        last = [] if log.failure is None else numbered(answer.fail(log.failure), len(log))
        keep = partial(_keep_ending, answer, last, number=len(log), store=store)
        try:
            await keep()
        except StoreFailed:
            run.owe(keep)
        log.complete(last)


async def _keep_ending(
    answer: StartedAnswer, last: Sequence[bytes], *, number: int, store: Store
) -> None:
    """Tells the store that there are no more events than this last one, of this number, if any."""
    await store.finish(
        answer.completion_id,
        status="failed" if answer.has_failed else "completed",
        resource={},
        outputs=[],
        last_events=EventBatch(first=number, last=number, frames=last[0]) if last else None,
        keeps_events=True,
    )


def numbered(events: bytes, number: int) -> list[bytes]:
    """Events that were joined, each with its number as id, from this one on."""
    return [
        b"id: %d\n" % (number + place) + frame for place, frame in enumerate(split_frames(events))
    ]


@closed
class DeletedCompletion(TypedDict):
    id: str
    object: str
    deleted: bool


def resume_operation(path: str, event: type) -> Operation:
    """The route that reads a completion's events again. event: the shape of one."""
    return Operation(
        path=path,
        method="GET",
        summary="The events of a resumable stream, from any point on",
        description="For streams that were asked for with `X-Resumable: true`. Needs "
        "`stream=true`; `starting_after` or `Last-Event-ID` is the last event that the client has; "
        "after the last of all, `Last-Event-ID` is answered with 204.",
        answers={200: {EVENTS: event}, 204: {}},
        errors=(400, 404, 503),
    )


def delete_operation(path: str) -> Operation:
    """The route that deletes what is kept of a completion."""
    return Operation(
        path=path,
        method="DELETE",
        summary="Ends a resumable stream and deletes its events",
        answers={200: {JSON: DeletedCompletion}},
        errors=(404, 503),
    )


def resume(context: ServerContext) -> Handler:
    """One handler for all dialects: an id says by itself whose it is."""

    async def answer(http: HttpRequest) -> Response:
        query = read_resume_query(http)
        if not query.is_streamed:
            raise InvalidRequest("stream: only true; the events are what is kept", param="stream")
        identifier, owner = http.path_params["id"], owner_of(http)
        run = context.runs.find(identifier, owner=owner)
        if run is not None:
            return running_again(run, query, context)
        store = context.store
        found = None if store is None else await store.response(identifier, owner=owner)
        if store is None or found is None or found.kind != "chat":
            raise _unknown(identifier)
        return await stored_again(store, found, query, context)

    return answer


def delete(context: ServerContext) -> Handler:
    """One handler for all dialects."""

    async def answer(http: HttpRequest) -> Response:
        identifier, owner = http.path_params["id"], owner_of(http)
        run = context.runs.find(identifier, owner=owner)
        if run is not None:
            run.cancel()
            await run.settled()
        store = context.store
        if store is None or not await store.delete_response(identifier, owner=owner):
            raise _unknown(identifier)
        return JSONResponse({"id": identifier, "object": "completion.deleted", "deleted": True})

    return answer


def _unknown(identifier: str) -> NotFound:
    return NotFound(
        f"there is no resumable stream {shown(identifier)}", param="id", code="completion_not_found"
    )
