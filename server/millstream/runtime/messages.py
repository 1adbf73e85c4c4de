"""What crosses the boundary between the HTTP process and the engine, in MessagePack.

To the engine: Add, Cancel, Stop. From it: Loading now and then, Ready once, or Fatal instead; then
one Step per forward step, and Ended at an orderly end. The structs are the protocol: both ends
decode with the types below and nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from millstream.core.request import FailureCode, FailureEvent, Request, TokenEvent
from millstream.core.status import EngineInfo, Statistics
from millstream.errors import (
    ContextTooLong,
    GenerationFailed,
    InvalidRequest,
    MillstreamError,
    OutOfMemory,
    Overloaded,
)


class Add(msgspec.Struct, tag=True, frozen=True):
    request: Request


class Cancel(msgspec.Struct, tag=True, frozen=True):
    request_id: int


class Stop(msgspec.Struct, tag=True, frozen=True):
    """Leave now; whatever still runs is abandoned (the client has told everyone)."""


class Loading(msgspec.Struct, tag=True, frozen=True):
    """How far the engine's start is. fraction: of the step that is done, if that is known."""

    step: str
    fraction: float | None = None


class Ready(msgspec.Struct, tag=True, frozen=True):
    info: EngineInfo


class Fatal(msgspec.Struct, tag=True, frozen=True):
    """The engine cannot start as configured; trying again would not help."""

    message: str


class Wait(NamedTuple):
    """A request has begun to run. seconds: from when the engine had it."""

    request_id: int
    seconds: float


class Step(msgspec.Struct, tag=True, frozen=True):
    """Everything one step has to tell, and how the scheduler stands after it.

    waits: of the requests that no message before has told of. compilations: seconds of those that
    no message before has told of.
    """

    tokens: list[TokenEvent]
    failures: list[FailureEvent]
    statistics: Statistics
    waits: list[Wait] = []
    compilations: list[float] = []


class Ended(msgspec.Struct, tag=True, frozen=True):
    """The engine's last message: it ends as it should, and everything it had to tell is told."""


ToEngine = Add | Cancel | Stop
FromEngine = Loading | Ready | Fatal | Step | Ended

encode = msgspec.msgpack.Encoder().encode
_to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
_from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


def decode_to_engine(data: bytes) -> ToEngine:
    """Raises msgspec.ValidationError for anything but a message to the engine."""
    return _to_engine.decode(data)


def decode_from_engine(data: bytes) -> FromEngine:
    """Raises msgspec.ValidationError for anything but a message from the engine."""
    return _from_engine.decode(data)


def error_of(failure: FailureEvent) -> MillstreamError:
    """The error that the caller of a failed request gets.

    A code that says nothing about the request is a GenerationFailed.
    """
    match failure.code:
        case FailureCode.TOO_LONG:
            return ContextTooLong(failure.message, param="messages")
        case FailureCode.QUEUED_TOO_LONG:
            return Overloaded(failure.message, flag="--max-queue-seconds")
        case FailureCode.OUT_OF_MEMORY:
            return OutOfMemory(failure.message)
        case FailureCode.NO_TOKEN_ALLOWED:
            return InvalidRequest(failure.message, code=failure.code.value)
    return GenerationFailed(failure.message, code=failure.code.value)
