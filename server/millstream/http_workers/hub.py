"""What stands between one engine and several HTTP workers: passes on what each says.

Rules:
1. A step is passed on to those workers that it brings something, each with what is its own.
2. A worker that has ended asks for nothing any more: the engine is told so.
3. Who comes later hears how things stand.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable

from millstream.core.status import Statistics
from millstream.http_workers.count_messages import AskCounts, TellCounts
from millstream.http_workers.counting import CountKeeper
from millstream.http_workers.messages import Drain, EngineEnded, FromHub, ToHub
from millstream.http_workers.numbering import worker_of
from millstream.http_workers.shared_admission import SharedAdmission
from millstream.http_workers.shared_status import StatusWriter
from millstream.runtime.engine_link import EngineLink
from millstream.runtime.messages import Add, Cancel, Fatal, FromEngine, Loading, Ready, Step
from millstream.runtime.readiness import Readiness

log = logging.getLogger(__name__)


class Hub:
    """The engine's Listener. For one event loop.

    readiness: what is known of the engine. num_generated_tokens: those that have passed.
    """

    def __init__(
        self,
        link: EngineLink,
        status: StatusWriter,
        admission: SharedAdmission,
        *,
        num_workers: int,
        send: Callable[[int, FromHub], None],
        forget: Callable[[int], None],
    ) -> None:
        """send: to a worker, by its number. forget: gives back what a worker had that is gone, in
        memory that they share."""
        self.readiness = Readiness()
        self.num_generated_tokens = 0
        self._link = link
        self._status = status
        self._admission = admission
        self._send = send
        self._forget = forget
        self._counts = CountKeeper(send)
        self._workers = range(num_workers)
        # The requests of each worker that are in the engine.
        self._requests: list[set[int]] = [set() for _ in self._workers]

    @property
    def is_waiting(self) -> bool:
        """Whether a request is in the engine."""
        return any(self._requests)

    @property
    def statistics(self) -> Statistics:
        """What the engine said last of its work."""
        return self._status.statistics

    @property
    def num_open(self) -> int:
        """Places that are held, by requests of all workers."""
        return self._admission.num_taken

    def start(self) -> None:
        """Starts the engine, and returns at once."""
        self.readiness.on_start()
        self._link.start(self)

    def drain(self) -> None:
        """Tells all workers to end; called again, to end at once. This engine is the last one."""
        self.readiness.is_draining = True
        self._link.start_no_more()
        self._tell_all(Drain())

    async def stop(self) -> None:
        """Ends the engine."""
        self.readiness.is_draining = True
        await self._link.stop()

    def greet(self, worker: int) -> None:
        """Tells a worker that has just been started how things stand."""
        if self.readiness.info is not None:
            self._send(worker, Ready(self.readiness.info))
        elif self.readiness.progress is not None:
            self._send(worker, self.readiness.progress)
        if self.readiness.is_draining:
            self._send(worker, Drain())

    def on_worker_message(self, worker: int, message: ToHub) -> None:
        """A worker asks something, most of the time of the engine."""
        was_waiting = self.is_waiting
        if isinstance(message, Add):
            self._requests[worker].add(message.request.id)
            self._link.post(message)
        elif isinstance(message, Cancel):
            self._requests[worker].discard(message.request_id)
            self._link.post(message)
        elif isinstance(message, AskCounts | TellCounts):
            self._counts.receive(worker, message)
        self._note_waiting(was_waiting=was_waiting)

    def on_worker_end(self, worker: int) -> None:
        """A worker is gone, and whoever it has served with it: their places are free."""
        self._forget(worker)
        self._counts.ended(worker)
        was_waiting = self.is_waiting
        for request_id in self._requests[worker]:
            self._link.post(Cancel(request_id))
        self._requests[worker].clear()
        self._note_waiting(was_waiting=was_waiting)

    def on_message(self, message: FromEngine) -> None:
        """For the link: the engine has said something."""
        if isinstance(message, Step):
            self._pass_on(message)
        elif isinstance(message, Loading | Ready):
            self.readiness.on_message(message)
            self._tell_all(message)
        elif isinstance(message, Fatal):
            # Its end follows, which workers hear of.
            self.readiness.on_message(message)

    def on_end(self, how: str, *, is_final: bool) -> None:
        """For the link: the engine is gone."""
        for requests in self._requests:
            requests.clear()
        self._status.on_end(is_replaced=self.readiness.on_end(how, is_final=is_final))
        self._tell_all(EngineEnded(how, is_final))

    def _pass_on(self, step: Step) -> None:
        was_waiting = self.is_waiting
        parts = split(step)
        for worker, part in parts.items():
            requests = self._requests[worker]
            for event in part.tokens:
                self.num_generated_tokens += len(event.token_ids)
                if event.finish_reason is not None:
                    requests.discard(event.request_id)
            requests.difference_update(failure.request_id for failure in part.failures)
        # Before anybody can ask about what they are told.
        self._status.on_step(step.statistics)
        self._note_waiting(was_waiting=was_waiting)
        for worker, part in parts.items():
            self._send(worker, part)

    def _note_waiting(self, *, was_waiting: bool) -> None:
        if self.is_waiting == was_waiting:
            return
        self._status.on_waiting(is_waiting=not was_waiting)
        if not was_waiting:
            self._link.expect_news()

    def _tell_all(self, message: FromHub) -> None:
        for worker in self._workers:
            self._send(worker, message)


def split(step: Step) -> dict[int, Step]:
    """What of a step is for whom, by their numbers: events of their requests. Times of compiled
    grammars, which are nobody's, go to the first."""
    parts: dict[int, Step] = defaultdict(lambda: Step([], [], step.statistics, [], []))
    for event in step.tokens:
        parts[worker_of(event.request_id)].tokens.append(event)
    for failure in step.failures:
        parts[worker_of(failure.request_id)].failures.append(failure)
    for wait in step.waits:
        parts[worker_of(wait.request_id)].waits.append(wait)
    if step.compilations:
        parts[min(parts, default=0)].compilations.extend(step.compilations)
    return dict(parts)
