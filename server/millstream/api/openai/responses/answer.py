"""The work of a response: its events into the log while tokens come, and one ending.

Rules: what the ending says is in the store before anybody reads it; whatever ends the work, the
client that leaves, a cancellation, a failure or a shutdown, the response has a final status and
what was said until then. Where the store fails, readers are told so by one last event, and the
store is told as soon as it can be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from millstream.answering.event_log import EventLog
from millstream.answering.runs import Run
from millstream.api.openai.responses.builder import OutputBuilder
from millstream.api.openai.responses.resource import (
    ResponseResource,
    ResponseStatus,
    response_usage,
)
from millstream.api.openai.responses.timing import AnswerTiming
from millstream.api.wire.request_log import CLIENT_LEFT
from millstream.errors import MillstreamError, RequestCancelled
from millstream.generation.choices import Choice
from millstream.metrics.ended_request import AnswerFacts
from millstream.store.records import EventBatch, StoredItem
from millstream.store.store import Store
from millstream.text.assembler import TextDelta

_TERMINAL: dict[ResponseStatus, str] = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
    # The API has no event of this name that clients know; this one they take for an end.
    "cancelled": "response.incomplete",
}


class ResponseAnswer:
    """One response while it is made. failure: what ended it, unless it ended by itself."""

    def __init__(
        self,
        choice: Choice,
        *,
        resource: ResponseResource,
        builder: OutputBuilder,
        timing: AnswerTiming,
        log: EventLog,
        store: Store | None,
        is_silent: bool = False,
    ) -> None:
        """store: where it is kept; None for one that is not. is_silent: it says nothing."""
        self._choice = choice
        self._resource = resource
        self._builder = builder
        self._timing = timing
        self._log = log
        self._store = store
        self._is_silent = is_silent
        self._num_generated, self._num_reasoning = 0, 0
        self.failure: MillstreamError | None = None

    def announce(self, *, is_queued: bool, said: Sequence[Mapping[str, Any]] = ()) -> None:
        """Logs the first events. is_queued: whether they say that it waits for its turn. said: what
        it begins with, which an answer that was cut has said."""
        resource, builder = self._resource, self._builder
        resource.turn("queued" if is_queued else "in_progress")
        shown = resource.shown([])
        events = [builder.announce("response.created", shown)]
        kind = "response.queued" if is_queued else "response.in_progress"
        events.append(builder.announce(kind, shown))
        self._log.append([*events, *builder.resume(said)])

    async def make(self, run: Run) -> dict[str, Any]:
        """Makes it, as the work of this run, and gives it."""
        status: ResponseStatus = "failed"
        try:
            status = await self._generate()
        except (asyncio.CancelledError, RequestCancelled):
            status = "cancelled"
        except MillstreamError as error:
            self.failure = error
        except Exception:
            self.failure = MillstreamError("the server failed to make this answer")
            raise
        finally:
            self._choice.stream.close()
            await self._end(status, run)
        return self.snapshot()

    def snapshot(self) -> dict[str, Any]:
        """The response as it is now."""
        return self._resource.shown(self._builder.output())

    async def _generate(self) -> ResponseStatus:
        while True:
            delta = await self._choice.advance()
            self._count(delta)
            if self._is_silent:
                return "completed"
            if events := self._builder.push(delta):
                self._log.append(events)
            if delta.finish_reason is not None:
                return "completed" if delta.finish_reason == "stop" else "incomplete"

    def _count(self, delta: TextDelta) -> None:
        if not self._num_generated and self._resource.status == "queued":
            self._resource.turn("in_progress")
            shown = self._resource.shown([])
            self._log.append([self._builder.announce("response.in_progress", shown)])
        self._timing.note(delta)
        if self._is_silent:
            return
        self._num_generated += len(delta.token_ids)
        self._num_reasoning += delta.num_reasoning

    async def _end(self, status: ResponseStatus, run: Run) -> None:
        self._timing.end()
        await self._log.settle()
        error = self._log.failure
        events = self._closing(status if error is None else "failed")
        if error is None:
            events.append(self._terminal(status))
            try:
                await self._ending(events, run)()
            except MillstreamError as refusal:
                error = refusal
            else:
                self._log.complete(events)
                return
        self.failure = self.failure or error
        # What comes next is numbered after what readers may have.
        self._builder.frames.number = len(self._log)
        events = [self._terminal("failed")]
        run.owe(self._ending(events, run))
        self._log.complete(events)

    def _closing(self, status: ResponseStatus) -> list[bytes]:
        """The events that end what is open."""
        is_whole = status == "completed"
        if self._is_silent or not (is_whole or status == "incomplete" or self._builder.output()):
            return []
        return self._builder.close("completed" if is_whole else "incomplete")

    def _terminal(self, status: ResponseStatus) -> bytes:
        """The last event, which says what the response has become."""
        self._resource.end(status, usage=self._usage(), error=self.failure)
        return self._builder.announce(_TERMINAL[status], self.snapshot())

    def _ending(self, events: Sequence[bytes], run: Run) -> Callable[[], Awaitable[None]]:
        """What tells the store how it ended, with these events at the end."""
        store, last = self._store, None
        if store is None:
            return _nothing
        if run.is_replayed:
            number = self._builder.frames.number
            last = EventBatch(first=number - len(events), last=number - 1, frames=b"".join(events))
        return partial(
            store.finish,
            self._resource.id,
            status=self._resource.status,
            resource=self._resource.without_output(),
            outputs=[StoredItem(id=item["id"], data=item) for item in self._builder.output()],
            timing=self._timing.shown(),
            last_events=last,
            keeps_events=run.is_replayed,
        )

    def _usage(self) -> dict[str, Any]:
        assembler = self._choice.assembler
        return response_usage(
            num_prompt=assembler.num_prompt,
            num_cached=assembler.num_cached,
            num_generated=self._num_generated,
            num_reasoning=self._num_reasoning,
        )

    def facts(self) -> AnswerFacts:
        """What is to be logged when the request has ended."""
        assembler, status = self._choice.assembler, self._resource.status
        finish = {"completed": "stop", "incomplete": "length"}.get(status)
        ending = CLIENT_LEFT if status == "cancelled" else None
        return AnswerFacts(
            completion_id=self._resource.id,
            num_prompt=assembler.num_prompt,
            num_cached=assembler.num_cached,
            num_generated=self._num_generated,
            finish_reasons=[finish] if finish else [],
            queue_seconds=self._choice.stream.queue_seconds,
            first_token=self._timing.first_token,
            ending=ending if self.failure is None else self.failure.code,
            lives=[self._choice.stream.life],
        )


async def _nothing() -> None:
    """What a response that is not kept tells the store."""
