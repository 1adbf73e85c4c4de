"""What the hub hands to a worker when it starts it: a line of JSON on its standard input.

Not arguments or variables, which others can read: secrets are among it.
"""

from __future__ import annotations

import fcntl
from typing import Any, Self

import msgspec
from pydantic import SecretStr

from millstream.settings import Settings
from millstream.shared_memory import SharedMemory


class HandedMemory(msgspec.Struct, frozen=True):
    """Shared memory by its descriptor."""

    descriptor: int
    num_bytes: int

    def opened(self) -> SharedMemory:
        """The memory, in the process that it was handed to. Once."""
        return SharedMemory(self.descriptor, self.num_bytes)


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """worker: its number, from 0 on, of num_workers. start: how many of that number came before it.
    endpoint: of its socket to the hub. folder: the model's. listeners: descriptors of the sockets
    that it serves; peer_listener: of the one on which it serves other workers. peer_paths: of those
    of all workers, by their numbers. places, status, pulses, keys: what all workers share; keys is
    None for a server without. session_secret: what cookies are signed with where no store has one.
    """

    worker: int
    start: int
    num_workers: int
    endpoint: str
    settings: dict[str, Any]
    folder: str
    listeners: list[int]
    peer_listener: int
    peer_paths: list[str]
    places: HandedMemory
    status: HandedMemory
    pulses: HandedMemory
    keys: HandedMemory | None
    session_secret: bytes

    def keep(self) -> None:
        """Keeps what was handed to this process from its own children, which would inherit it."""
        memories = (self.places, self.status, self.pulses, self.keys)
        shared = [memory.descriptor for memory in memories if memory is not None]
        for descriptor in (*self.listeners, self.peer_listener, *shared):
            fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)

    def line(self) -> bytes:
        """The line with all of it."""
        return msgspec.json.encode(self) + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Self:
        """Raises msgspec.ValidationError for anything else."""
        return msgspec.json.decode(line, type=cls)


def with_secrets(settings: Settings) -> dict[str, Any]:
    """All settings, for a process that is to have the secrets too, as JSON can say them."""
    said = settings.model_dump(mode="json")
    for name, field in Settings.model_fields.items():
        if field.exclude:
            said[name] = _opened(getattr(settings, name))
    return said


def _opened(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, list | tuple):
        return [_opened(each) for each in value]
    return value
