"""One accepted request as its caller sees it: batches of events, then one ending.

Rules: a stream ends exactly once, by a finish event, a failure or `close()`; nothing follows.
Closing is cancelling. A reader that falls behind gets everything it missed in one batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

from millstream.core.request import FinishReason, Request, TokenEvent
from millstream.errors import GenerationTimeout, MillstreamError
from millstream.metrics.request_metrics import RequestLife, RequestMetrics
from millstream.runtime.meter import Meter

T = TypeVar("T")


class TokenStream:
    """Async iterator over batches of TokenEvents; holds one place of the admission limit.

    Created by `EngineClient.open()`. Belongs to one event loop. Must be closed.
    names: what `EngineClient.cancel()` knows it by. life: when what happened to the request.
    meter: counts what it costs, if anybody does.
    """

    def __init__(
        self,
        request_id: int,
        *,
        send: Callable[[Request], None],
        forget: Callable[[TokenStream], None],
        names: Collection[str] = (),
        metrics: RequestMetrics | None = None,
    ) -> None:
        """send: to the engine. forget: gives the place back; called as often as one likes."""
        self.id = request_id
        self.names = names
        self._send = send
        self._forget = forget
        self._events: list[TokenEvent] = []
        self._failure: MillstreamError | None = None
        self._reader: asyncio.Future[None] | None = None
        self._preparing: asyncio.Future[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._metrics = metrics or RequestMetrics()
        self.life = RequestLife()
        self.meter: Meter | None = None
        self.finish_reason: FinishReason | None = None
        self.is_started = False
        self.is_ended = False

    @property
    def failure(self) -> MillstreamError | None:
        """What ended the request, unless it finished."""
        return self._failure

    @property
    def queue_seconds(self) -> float | None:
        """How long the request waited in the engine; None until it runs."""
        return self.life.queue_seconds

    @property
    def is_timed(self) -> bool:
        """Whether a time limit is running."""
        return self._timer is not None

    def limit_time(self, timeout: float) -> None:
        """Fails with GenerationTimeout after so many seconds from now, wherever it is then."""
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(timeout, self._expire, timeout)

    async def prepare(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work`, which comes before `start()`; cancels it if the stream fails, and raises
        that failure."""
        working = asyncio.ensure_future(work)
        self._preparing = working
        if self._failure is not None:
            working.cancel()
        try:
            return await working
        except asyncio.CancelledError:
            if working.cancelled():
                self._check_failure()
            raise
        finally:
            self._preparing = None

    def start(self, request: Request) -> None:
        """Hands the request to the engine. Raises what admission raises (see EngineClient)."""
        assert not self.is_started, "start() once"
        self._check_failure()
        if self.meter is not None:
            request = self.meter.begin(request)
        self._send(request)
        self.is_started = True
        self._metrics.on_sent(
            self.life,
            num_prompt=len(request.prompt),
            max_tokens=request.max_tokens,
            is_leader=request.follows is None,
        )

    def __aiter__(self) -> TokenStream:
        return self

    async def __anext__(self) -> list[TokenEvent]:
        """The next events, at least one. Raises the failure that ended the request, if one did."""
        while not self._events:
            self._check_failure()
            if self.is_ended:
                raise StopAsyncIteration
            assert self._reader is None, "one reader at a time"
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        events, self._events = self._events, []
        return events

    def tell(self, num_tokens: int) -> None:
        """Counts tokens that its reader passes on."""
        self.life.num_generated += num_tokens
        self._metrics.num_generated_tokens += num_tokens

    def close(self, finish_reason: FinishReason | None = None) -> None:
        """Gives the place back and cancels the request if it has not ended. Idempotent.

        finish_reason: why the answer is complete, if it is. The engine need not know of it.
        """
        self.finish_reason = self.finish_reason or finish_reason
        self._stop_timer()
        self._forget(self)

    def push(self, event: TokenEvent) -> None:
        """For the client only: events of this request have arrived."""
        if self.is_ended:
            return
        self._events.append(event)
        if event.finish_reason is not None:
            self.is_ended = True
            self._stop_timer()
        self._wake()

    def fail(self, error: MillstreamError) -> None:
        """For the client only: this request ends with `error` after what was delivered."""
        if not self.is_ended:
            self.is_ended = True
            self._failure = error
            self._stop_timer()
            self._wake()
            if self._preparing is not None:
                self._preparing.cancel()

    def end(self, error: MillstreamError) -> None:
        """Fails with `error`, and gives the place back at once."""
        if not self.is_ended:
            self._failure = error
        self._forget(self)
        self.fail(error)

    def _check_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _wake(self) -> None:
        # Done already when more than one event comes before the reader runs, or if it left.
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _expire(self, timeout: float) -> None:
        error = GenerationTimeout(f"the answer was not complete after {timeout:g} s")
        self.end(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
