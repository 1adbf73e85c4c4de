"""One request of a program, from its admission to its last delta. On the background loop only.

Rule: its places are given back on every ending: finish, failure, cancellation, `close()`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from millstream.embedded.asking import Asked
from millstream.embedded.delta_maker import DeltaMaker
from millstream.embedded.results import Delta, Usage
from millstream.errors import MillstreamError
from millstream.generation.choices import Choice, merge
from millstream.text.assembler import TextDelta

NOTHING = Usage(prompt_tokens=0, completion_tokens=0, cached_tokens=0)


@dataclass(frozen=True, slots=True)
class Begun:
    """A request that the engine has. unenforced: keywords of its form left to the model."""

    choices: Sequence[Choice]
    unenforced: tuple[str, ...] = ()


class _ClosedByReader(MillstreamError):
    """Wakes a reader whose answer is closed from elsewhere."""


class Generation:
    """Begins with `begin()` or the first `next()`, ends with the last delta or `close()`.

    start: admits the request and hands it to the engine. release: gives its places back.
    request_id: what `Engine.cancel()` knows it by.
    """

    def __init__(
        self,
        asked: Asked,
        request_id: str,
        *,
        start: Callable[[Asked, str], Awaitable[Begun]],
        release: Callable[[Sequence[Choice]], None],
    ) -> None:
        self.request_id = request_id
        self._asked = asked
        self._start = start
        self._release = release
        self._begun: Begun | None = None
        self._maker: DeltaMaker | None = None
        self._news: AsyncGenerator[tuple[int, TextDelta], None] | None = None
        self._is_reading = False
        self._is_closed = False
        self._closing: asyncio.Task[None] | None = None

    @property
    def usage(self) -> Usage:
        """What has been delivered so far."""
        return self._maker.usage if self._maker is not None else NOTHING

    @property
    def unenforced(self) -> tuple[str, ...]:
        return self._begun.unenforced if self._begun is not None else ()

    async def begin(self) -> None:
        """Waits until the engine has the request. Raises what refuses it. Idempotent."""
        if self._begun is None and not self._is_closed:
            await self._begin()

    async def next(self) -> Delta | None:
        """What has arrived since the last call, waiting for something; None after the end."""
        await self.begin()
        if self._is_closed:
            return None
        assert self._news is not None
        assert self._maker is not None
        self._is_reading = True
        try:
            index, new = await anext(self._news)
        except _ClosedByReader:
            return None
        finally:
            self._is_reading = False
        delta = self._maker.delta(index, new)
        if delta.usage is not None:
            self.close()
        elif delta.finish_reason is not None:
            self._release(())
        return delta

    def close(self) -> None:
        """Cancels what has not ended. Idempotent; ends a `next()` that waits."""
        self._is_closed = True
        if self._begun is None:
            return
        self._release(self._begun.choices)
        for choice in self._begun.choices:
            choice.stream.fail(_ClosedByReader("the answer was closed by its reader"))
        if self._news is not None and not self._is_reading and self._closing is None:
            self._closing = asyncio.ensure_future(self._news.aclose())

    async def _begin(self) -> None:
        begun = await self._start(self._asked, self.request_id)
        self._maker = DeltaMaker(self._asked, begun.choices, request_id=self.request_id)
        self._news = merge(begun.choices)
        self._begun = begun
        if self._is_closed:  # meanwhile
            self.close()
