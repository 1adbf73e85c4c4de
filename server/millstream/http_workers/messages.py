"""What crosses the boundary between the hub and an HTTP worker, in MessagePack.

To the hub: Serving once; the requests, as for an engine (Add, Cancel). From it: what the engine
says (Loading, Ready, Fatal, and of each Step what is for that worker), EngineEnded, and Drain.
What is said of counts is in `count_messages.py`.
"""

from __future__ import annotations

import msgspec

from millstream.http_workers.count_messages import AllCounts, AskCounts, GatherCounts, TellCounts
from millstream.runtime.messages import Add, Cancel, Fatal, Loading, Ready, Step


class Serving(msgspec.Struct, tag=True, frozen=True):
    """The worker takes connections."""


class EngineEnded(msgspec.Struct, tag=True, frozen=True):
    """The engine is gone. how: it ended. is_final: no other one is being started."""

    how: str
    is_final: bool


class Drain(msgspec.Struct, tag=True, frozen=True):
    """End, as a server does on SIGTERM; said again: at once."""


ToHub = Serving | Add | Cancel | AskCounts | TellCounts
FromHub = Loading | Ready | Fatal | Step | EngineEnded | Drain | GatherCounts | AllCounts

encode = msgspec.msgpack.Encoder().encode
_to_hub: msgspec.msgpack.Decoder[ToHub] = msgspec.msgpack.Decoder(ToHub)
_from_hub: msgspec.msgpack.Decoder[FromHub] = msgspec.msgpack.Decoder(FromHub)


def decode_to_hub(data: bytes) -> ToHub:
    """Raises msgspec.ValidationError for anything but a message to the hub."""
    return _to_hub.decode(data)


def decode_from_hub(data: bytes) -> FromHub:
    """Raises msgspec.ValidationError for anything but a message from the hub."""
    return _from_hub.decode(data)
