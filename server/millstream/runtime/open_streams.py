"""The streams that hold a place: who gets one, what they are told, and how they end.

Rules:
1. Admission is decided at once, never by waiting.
2. A stream holds its place from `open_many()` until it is closed or has failed.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator

from millstream.core.request import Request
from millstream.errors import MillstreamError, Overloaded, RequestCancelled
from millstream.metrics.request_metrics import ASKED, READER_LEFT, RequestMetrics
from millstream.runtime.admission import Admission
from millstream.runtime.messages import Add, Cancel, Step, ToEngine, error_of
from millstream.runtime.stream import TokenStream
from millstream.runtime.turnover import Turnover


class OpenStreams:
    """All streams of this process on one engine. Mutated by the client only."""

    def __init__(
        self,
        admission: Admission,
        *,
        ids: Iterator[int],
        check_available: Callable[[], object],
        post: Callable[[ToEngine], None],
        on_close: Callable[[], None],
    ) -> None:
        """ids: new ones for requests. check_available: raises while the engine takes no requests.
        post: sends to the engine. on_close: called when a place has become free."""
        self._admission = admission
        self._ids = ids
        self.metrics = RequestMetrics()
        self._check_available = check_available
        self._post = post
        self._on_close = on_close
        self._turnover = Turnover(places=admission.limit)
        self._streams: dict[int, TokenStream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[TokenStream]:
        return iter(self._streams.values())

    @property
    def is_any_in_engine(self) -> bool:
        """Whether a request was handed to the engine and has not ended."""
        return any(s.is_started and not s.is_ended for s in self._streams.values())

    def queue_position(self, stream: TokenStream) -> int | None:
        """At which place a request waits in the engine, 1 for the next one; None if it does not."""
        return self._admission.position(stream.id)

    def open_many(self, count: int, *, names: Collection[str]) -> list[TokenStream]:
        """Takes `count` places at once or none. names: what `cancel()` may call the streams.

        Raises Overloaded when too few places are left.
        """
        ids = list(itertools.islice(self._ids, count))
        if not self._admission.take(ids):
            full = Overloaded(
                "Model is overloaded: all running and waiting places are taken",
                flag="--max-queue-size",
            )
            raise self._told_when(full, count)
        streams = [
            TokenStream(
                request_id,
                send=self._add,
                forget=self._forget,
                names=names,
                metrics=self.metrics,
            )
            for request_id in ids
        ]
        self._streams |= {stream.id: stream for stream in streams}
        return streams

    def cancel(self, name: str) -> bool:
        """Ends the open streams of this name with RequestCancelled; their places are free at once.

        False if there is none that has not ended.
        """
        found = [s for s in self._streams.values() if name in s.names and not s.is_ended]
        for stream in found:
            stream.end(RequestCancelled("the request was cancelled"))
        return bool(found)

    def deliver(self, step: Step) -> None:
        """Tells everyone what a step has brought."""
        now, metrics = time.monotonic(), self.metrics
        metrics.on_compiled(step.compilations)
        for wait in step.waits:
            self._admission.on_run(wait.request_id)
            if (stream := self._streams.get(wait.request_id)) is not None:
                metrics.on_run(stream.life, wait.seconds)
        for event in step.tokens:
            self._admission.on_news(event.request_id)
            stream = self._streams.get(event.request_id)
            if stream is not None:
                if event.token_ids:
                    metrics.on_token(stream.life, now, num_cached=event.num_cached)
                stream.push(event)
        for failure in step.failures:
            self._admission.on_end(failure.request_id)
            stream = self._streams.get(failure.request_id)
            if stream is not None:
                stream.fail(self._told_when(error_of(failure)))

    def fail_all(self, error: MillstreamError) -> None:
        """Ends every stream with this error."""
        for stream in list(self._streams.values()):
            if stream.is_started and not stream.is_ended:
                self._post(Cancel(stream.id))
            self._admission.on_end(stream.id)
            stream.fail(error)

    def _add(self, request: Request) -> None:
        self._check_available()
        try:
            self._admission.send(request)
        except Overloaded as error:
            raise self._told_when(error) from None
        self._post(Add(request))

    def _told_when(self, error: MillstreamError, count: int = 1) -> MillstreamError:
        """The error, which says when to try again if that is of use. count: places wanted."""
        if isinstance(error, Overloaded):
            error.retry_after = self._turnover.wait(count)
        return error

    def _forget(self, stream: TokenStream) -> None:
        if self._streams.pop(stream.id, None) is None:
            return
        self._admission.give_back(stream.id)
        if stream.meter is not None:
            stream.meter.end(stream.life)
        if stream.is_started:
            self._turnover.on_end()
            self._count_end(stream)
        if stream.is_started and not stream.is_ended:
            self._post(Cancel(stream.id))
        self._on_close()

    def _count_end(self, stream: TokenStream) -> None:
        metrics, failure = self.metrics, stream.failure
        if stream.finish_reason is not None:
            metrics.on_finished(stream.life, stream.finish_reason)
        elif failure is None or isinstance(failure, RequestCancelled):
            metrics.cancelled[READER_LEFT if failure is None else ASKED] += 1
        else:
            metrics.failed[failure.code] += 1
