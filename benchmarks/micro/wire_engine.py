"""An engine that computes nothing: one token for each running request in every step.

Started by `wire_server.py` where the server starts its own. It speaks the engine's messages over
the engine's socket; scheduler, runner and loop are replaced. A second socket leads to the load
client (see `wire_client.py`), which says when to step and what has arrived.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import msgspec
import zmq

from millstream.core.request import FinishReason, Request, TokenEvent, TokenLogprob
from millstream.core.status import EngineInfo, Statistics
from millstream.parent import exit_with_parent
from millstream.runtime.engine_side import SocketChannel
from millstream.runtime.messages import Add, Cancel, Ready, Step, Stop


class Begin(msgspec.Struct, tag=True, frozen=True):
    """Play one round with so many requests.

    interval: seconds from step to step; None: as fast as the client acknowledges them, with at
    most `window` steps on their way.
    """

    streams: int
    interval: float | None
    window: int


class Flow(msgspec.Struct, tag=True, frozen=True):
    """Step every `interval` seconds, until Finish; a request ends after `length` tokens."""

    interval: float
    length: int


class Arrived(msgspec.Struct, tag=True, frozen=True):
    """All tokens of the first `steps` steps have reached the client."""

    steps: int


class Finish(msgspec.Struct, tag=True, frozen=True):
    """The client has measured enough; the requests may end."""


class Sent(msgspec.Struct, frozen=True):
    """When each step was handed to the socket, by time.monotonic_ns()."""

    times: list[int]


Command = Begin | Flow | Arrived | Finish
decode_command = msgspec.msgpack.Decoder(Command).decode
decode_sent = msgspec.msgpack.Decoder(Sent).decode
encode = msgspec.msgpack.Encoder().encode

_INFO = EngineInfo(
    architecture="None",
    num_parameters=0,
    device="none",
    dtype="none",
    attention_backend="none",
    num_blocks=2**20,
    block_size=16,
    kv_cache_bytes=0,
    max_context=2**24,
    max_step_tokens=2**20,
    vocab_size=1536,
    stop_token_ids=(),
)


class FakeEngine:
    """Plays rounds until the server says Stop. token_ids: what every request gets in the steps of a
    round, in turn."""

    def __init__(
        self, socket: zmq.Socket[bytes], control: zmq.Socket[bytes], *, token_ids: Sequence[int]
    ) -> None:
        self._socket = socket
        self._channel = SocketChannel(socket)
        self._control = control
        self._token_ids = token_ids
        self._num_steps = 0
        self._running: dict[int, Request] = {}
        self._is_stopped = False

    def run(self) -> None:
        self.announce()
        poller = zmq.Poller()
        for socket in (self._socket, self._control):
            poller.register(socket, zmq.POLLIN)
        while not self._is_stopped:
            poller.poll()
            self.take_inbox()
            if not self._is_stopped and self._control.poll(0):
                command = decode_command(self._control.recv())
                if isinstance(command, Flow):
                    self._flow(command)
                else:
                    assert isinstance(command, Begin), "a round begins with Begin"
                    self._play(command)

    def announce(self) -> None:
        self._channel.send(Ready(_INFO))
        self._channel.send(Step([], [], self._statistics()))

    def take_inbox(self) -> None:
        while (message := self._channel.receive_nowait()) is not None:
            if isinstance(message, Add):
                self._running[message.request.id] = message.request
            elif isinstance(message, Cancel):
                self._running.pop(message.request_id, None)
            elif isinstance(message, Stop):
                self._is_stopped = True

    def _play(self, begin: Begin) -> None:
        while len(self._running) < begin.streams and not self._is_stopped:
            self._socket.poll()
            self.take_inbox()
        self._num_steps = 0
        # The first step opens the streams; nothing before its arrival is measured.
        times = [self.step()]
        arrived = self._next_arrival()
        started = time.monotonic()
        while arrived is not None and not self._is_stopped:
            if begin.interval is not None:
                due = started + len(times) * begin.interval
                time.sleep(max(0.0, due - time.monotonic()))
            is_full = begin.interval is None and len(times) - arrived >= begin.window
            if is_full or self._control.poll(0):
                arrived = self._next_arrival()
                continue
            times.append(self.step())
            self.take_inbox()
        times.append(self.step(reason="length"))
        self._running.clear()
        self._channel.send(Step([], [], self._statistics()))
        self._control.send(encode(Sent(times)))

    def _flow(self, flow: Flow) -> None:
        """Serves whoever comes. Tells at the end when each step was sent."""
        left: dict[int, int] = {}
        times: list[int] = []
        due = time.monotonic()
        while not self._control.poll(0) and not self._is_stopped:
            due = max(due + flow.interval, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            self.take_inbox()
            left = {each: left.get(each, flow.length) - 1 for each in self._running}
            token = self._token_ids[0]
            events = [
                self._event(request, token, None if left[each] else "length")
                for each, request in self._running.items()
            ]
            self._running = {e: request for e, request in self._running.items() if left[e]}
            times.append(time.monotonic_ns())
            self._channel.send(Step(events, [], self._statistics()))
        assert isinstance(decode_command(self._control.recv()), Finish), "a flow ends with Finish"
        self._running.clear()
        self._control.send(encode(Sent(times)))

    def _next_arrival(self) -> int | None:
        """Steps that have arrived; None when the round is to end."""
        command = decode_command(self._control.recv())
        assert not isinstance(command, Begin | Flow), "one round at a time"
        return command.steps if isinstance(command, Arrived) else None

    def step(self, *, reason: FinishReason | None = None) -> int:
        """One token for everybody; when it was sent."""
        token = self._token_ids[self._num_steps % len(self._token_ids)]
        self._num_steps += 1
        events = [self._event(request, token, reason) for request in self._running.values()]
        step = Step(events, [], self._statistics())
        now = time.monotonic_ns()
        self._channel.send(step)
        return now

    def _event(self, request: Request, token: int, reason: FinishReason | None) -> TokenEvent:
        wanted = request.sampling.logprobs
        scores: tuple[TokenLogprob, ...] = ()
        if wanted is not None:
            top = tuple((token + place, -0.5 - place) for place in range(wanted))
            scores = (TokenLogprob(token, -0.5, 1, top),)
        return TokenEvent(request.id, (token,), reason, 0, scores)

    def _statistics(self) -> Statistics:
        return Statistics(num_running=len(self._running), num_blocks=_INFO.num_blocks)


def main() -> None:
    control_endpoint, tokens, endpoint = sys.argv[1:]
    exit_with_parent()
    context = zmq.Context.instance()
    socket, control = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    for one, place in ((socket, endpoint), (control, control_endpoint)):
        one.set_hwm(0)
        one.linger = 1000
        one.connect(place)
    try:
        FakeEngine(socket, control, token_ids=[int(each) for each in tokens.split(",")]).run()
    finally:
        socket.close()
        control.close()


if __name__ == "__main__":
    main()
