"""One answer while it grows, for `async for` on any event loop and for plain `for`.

Rule: leaving is cancelling. Whichever way the loop is left (break, an exception, cancellation, the
object dropped), the request ends and its blocks are free.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from millstream.embedded.background import Background
from millstream.embedded.results import Answer, Delta, join
from millstream.embedded.session import Generation


class AnswerStream:
    """Iterator over Deltas. Made by `Engine.chat()` and `Engine.complete()`; one reader.

    Begins with the first delta that is asked for. Raises there what made the request fail.
    owner: kept alive as long as this is.
    """

    def __init__(self, background: Background, generation: Generation, owner: object) -> None:
        self._background = background
        self._generation = generation
        self._owner = owner

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
        future = self._background.submit(self._generation.next)
        try:
            delta = future.result()
        except BaseException:
            future.cancel()
            self.close()
            raise
        if delta is None:
            raise StopIteration
        return delta

    async def answer(self) -> Answer:
        """All that is left, as one answer. Raises what made the request fail."""
        async with self:
            deltas = [delta async for delta in self]
        return join(deltas, self._generation.usage)

    def close(self) -> None:
        """Cancels the request if it has not ended. Idempotent; from any thread."""
        self._background.call_soon(self._generation.close)

    async def aclose(self) -> None:
        """Closes the stream; the name that `contextlib.aclosing` calls."""
        self.close()

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> AnswerStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
