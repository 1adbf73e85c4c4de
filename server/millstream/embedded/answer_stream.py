"""One answer while it grows, for `async for` on any event loop and for plain `for`.

Rules: what refuses a request is raised by its admission, which a block begins with, or the first
delta; leaving is cancelling. Whichever way the loop is left (break, an exception, cancellation, the
object dropped), the request ends and its blocks are free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, TypeVar

from millstream.embedded.background import Background
from millstream.embedded.generation import Generation
from millstream.embedded.results import Answer, Delta, join

T = TypeVar("T")


class AnswerStream:
    """Iterator over Deltas. Made by `Engine.chat()` and `Engine.complete()`; one reader.

    Begins with its block, with `admitted()`, or with the first delta that is asked for, and raises
    there what refuses the request. owner: kept alive as long as this is.
    """

    def __init__(self, background: Background, generation: Generation, owner: object) -> None:
        self._background = background
        self._generation = generation
        self._owner = owner

    @property
    def request_id(self) -> str:
        """What `Engine.cancel()` knows it by."""
        return self._generation.request_id

    @property
    def unenforced(self) -> tuple[str, ...]:
        """Keywords of a schema that are left to the model; known once it is admitted."""
        return self._generation.unenforced

    async def admitted(self) -> AnswerStream:
        """Itself, once the engine has the request. Raises Overloaded, InvalidRequest and whatever
        else refuses it: all that is to be known before an answer is promised to somebody."""
        try:
            await asyncio.wrap_future(self._background.submit(self._generation.begin))
        except BaseException:
            self.close()
            raise
        return self

    def wait_admitted(self) -> AnswerStream:
        """`admitted()`, without an event loop."""
        self._wait(self._generation.begin)
        return self

    def __aiter__(self) -> AnswerStream:
        return self

    async def __anext__(self) -> Delta:
        try:
            delta = await asyncio.wrap_future(self._background.submit(self._generation.next))
        except BaseException:
            self.close()
            raise
        if delta is None:
            raise StopAsyncIteration
        return delta

    def __iter__(self) -> AnswerStream:
        return self

    def __next__(self) -> Delta:
        delta = self._wait(self._generation.next)
        if delta is None:
            raise StopIteration
        return delta

    async def answer(self) -> Answer:
        """All that is left, as one answer. Raises what made the request fail."""
        async with self:
            deltas = [delta async for delta in self]
        return self._join(deltas)

    def result(self) -> Answer:
        """`answer()`, without an event loop."""
        with self:
            return self._join(list(self))

    def close(self) -> None:
        """Cancels the request if it has not ended. Idempotent; from any thread."""
        self._background.call_soon(self._generation.close)

    async def aclose(self) -> None:
        """Closes the stream; the name that `contextlib.aclosing` calls."""
        self.close()

    def __enter__(self) -> AnswerStream:
        return self.wait_admitted()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> AnswerStream:
        return await self.admitted()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _wait(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What it returns on the background loop. Cancels the request if it raises."""
        future = self._background.submit(function)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            self.close()
            raise

    def _join(self, deltas: Sequence[Delta]) -> Answer:
        generation = self._generation
        return join(deltas, generation.usage, unenforced=generation.unenforced)
