"""The HTTP workers of one server, as one of them knows the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from millstream.api.peers.answer_ids import MAX_WORKERS, named_worker
from millstream.api.peers.exchange import Exchange
from millstream.errors import WorkerUnavailable

_PATIENCE_SECONDS = 5.0
"""How long a worker is waited for that does not respond: most are started again by then."""
_PAUSE_SECONDS = 0.05


class Peers:
    """All HTTP workers of a server, by their numbers. For one event loop.

    number: which of them this one is. paths: of the Unix sockets on which each of them serves the
    others, in the order of their numbers. forwarding: the tasks that wait for others to answer a
    client of this one. patience: seconds for which a worker is waited for that does not respond.
    """

    def __init__(
        self, number: int, paths: Sequence[str], *, patience: float = _PATIENCE_SECONDS
    ) -> None:
        assert 0 <= number < len(paths) <= MAX_WORKERS, "a number is a byte, and there is a path"
        self.number = number
        self.forwarding: set[asyncio.Task[Any]] = set()
        self._paths = tuple(paths)
        self._patience = patience

    @property
    def others(self) -> list[int]:
        """The numbers of all but this one."""
        return [number for number in range(len(self._paths)) if number != self.number]

    def other_maker(self, identifier: str) -> int | None:
        """The other worker that an answer's id names. None if it is this one, or nobody: it is no
        such id, or a server with more workers has made it, and the store has what is known."""
        number = named_worker(identifier)
        if number is None or number == self.number or number >= len(self._paths):
            return None
        return number

    async def connect(self, number: int) -> Exchange:
        """A connection to a worker, which waits for a request. Raises WorkerUnavailable."""
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    try:
                        return await Exchange.connect(self._paths[number])
                    except (OSError, asyncio.IncompleteReadError):
                        await asyncio.sleep(_PAUSE_SECONDS)
        except TimeoutError as error:
            raise not_responding() from error


def not_responding() -> WorkerUnavailable:
    """What is said of an answer whose worker is not there."""
    return WorkerUnavailable("the process that makes this answer does not respond; try again")
