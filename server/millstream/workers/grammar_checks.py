"""Grammars of clients, checked in children that are killed when they need too much of anything.

Rules:
1. This process compiles no grammar, and the engine compiles only what has passed here.
2. However a child ends, its request gets a GrammarError with a reason, and the next one a new
   child. If none can be started, that is EngineUnavailable.
3. Cancelling `texts()` kills the child that works for it.
4. Outcomes, errors too, are kept: what was checked once costs nothing. Their size is bounded.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from millstream.errors import EngineUnavailable, Overloaded
from millstream.text.grammars.answer_formats import GrammarError
from millstream.workers.grammar_process import GrammarProcess, Outcome, Part

_QUICK_SECONDS = 0.1
_SLOW_SECONDS = 0.25
_SLOW_RETRY_SECONDS = 10
_MAX_SLOW = 8
_MAX_IDLE = 2

log = logging.getLogger(__name__)


class PartError(GrammarError):
    """One of several grammars cannot be used. index: which."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


class GrammarChecks:
    """Checks grammars in children, one of which is kept warm. For one event loop; `stop()` it.

    A child works for a moment at once, beside one other. One that needs longer is paused, and goes
    on in turns with others like it, at a low priority: slow grammars delay each other and little
    else. Where many are slow, the next is refused.
    """

    def __init__(self, *, max_seconds: float = 5.0, max_bytes: int = 512 * 2**20) -> None:
        """max_seconds: CPU time for one call of `texts()`. max_bytes: address space of a child."""
        self._max_seconds = max_seconds
        self._max_bytes = max_bytes
        self._quick_turns = asyncio.Semaphore(2)
        self._slow_turns = asyncio.Semaphore(1)
        self._num_slow = 0
        self._idle: list[GrammarProcess] = []
        self._kept = KeptOutcomes()

    async def warm(self) -> None:
        """Starts a child if none is idle. If none can be started now, the next check tries."""
        if not self._idle:
            with suppress(EngineUnavailable):  # logged
                self._idle.append(await self._spawn())

    async def stop(self) -> None:
        """Ends the children that are idle; the others end with their callers."""
        while self._idle:
            await self._idle.pop().end()

    async def texts(self, parts: Sequence[Part]) -> list[str]:
        """The grammar of each part as the engine takes it, checked.

        Raises PartError for the first that cannot be used, EngineUnavailable if nothing can be
        checked now, Overloaded if others take long.
        """
        keys = _keys(parts)
        outcomes = self._kept.of(keys)
        missing = {key: part for key, part in zip(keys, parts, strict=True) if key not in outcomes}
        if missing and not any(isinstance(one, GrammarError) for one in outcomes.values()):
            outcomes |= await self._checked(missing)
        texts = []
        for index, key in enumerate(keys):
            outcome = outcomes.get(key, "")
            if isinstance(outcome, GrammarError):
                raise PartError(index, str(outcome))
            texts.append(outcome)
        return texts

    async def _checked(self, parts: Mapping[str, Part]) -> dict[str, Outcome]:
        """`_check()`, tried again where a child was gone before it began."""
        for _ in range(_MAX_IDLE + 1):
            with suppress(ChildProcessError):
                return await self._check(parts)
        raise EngineUnavailable("the format cannot be checked at the moment")

    async def _check(self, parts: Mapping[str, Part]) -> dict[str, Outcome]:
        """What a child says of these parts, up to the first error."""
        async with AsyncExitStack() as stack:
            async with self._quick_turns:
                child = await stack.enter_async_context(self._child())
                checking = asyncio.ensure_future(child.check(list(parts.values())))
                await asyncio.wait({checking}, timeout=_QUICK_SECONDS)
                if not checking.done():
                    child.pause()
            if not checking.done():
                await self._go_on_slowly(child, checking)
            found = dict(zip(parts, checking.result(), strict=False))
            self._kept.keep(found)
        await self.warm()
        return found

    async def _go_on_slowly(
        self, child: GrammarProcess, checking: asyncio.Future[list[Outcome]]
    ) -> None:
        """Lets a child end its work in turns with others. Raises Overloaded if they are many."""
        if self._num_slow >= _MAX_SLOW:
            busy = Overloaded("Model is overloaded: too many formats take long to check")
            busy.retry_after = _SLOW_RETRY_SECONDS
            raise busy
        self._num_slow += 1
        try:
            while not checking.done():
                async with self._slow_turns:
                    child.resume()
                    await asyncio.wait({checking}, timeout=_SLOW_SECONDS)
                    if not checking.done():
                        child.pause()
        finally:
            self._num_slow -= 1

    @asynccontextmanager
    async def _child(self) -> AsyncIterator[GrammarProcess]:
        """A child to work with, which is ended if it cannot be used again."""
        while self._idle and not self._idle[-1].is_usable:
            await self._idle.pop().end()
        child = self._idle.pop() if self._idle else await self._spawn()
        try:
            yield child
        finally:
            if child.is_usable and len(self._idle) < _MAX_IDLE:
                self._idle.append(child)
            else:
                await child.end()

    async def _spawn(self) -> GrammarProcess:
        try:
            return await GrammarProcess.spawn(
                max_seconds=self._max_seconds, max_bytes=self._max_bytes
            )
        except OSError as error:
            log.error("no process can be started to check a grammar: %s", error)
            raise EngineUnavailable("the format cannot be checked at the moment") from error


def _keys(parts: Sequence[Part]) -> list[str]:
    keys = []
    for index, part in enumerate(parts):
        try:
            keys.append(json.dumps(part))
        except RecursionError as error:
            raise PartError(index, "it is nested too deeply") from error
    return keys


class KeptOutcomes:
    """What was found of the grammars that were checked, the least recently used ones forgotten."""

    def __init__(self, *, max_number: int = 512, max_characters: int = 2**24) -> None:
        """max_characters: of all keys and texts together."""
        self._max_number = max_number
        self._max_characters = max_characters
        self._outcomes: OrderedDict[str, Outcome] = OrderedDict()
        self._num_characters = 0

    def of(self, keys: Iterable[str]) -> dict[str, Outcome]:
        """The outcomes that are known of these keys."""
        found = {}
        for key in keys:
            if key in self._outcomes:
                self._outcomes.move_to_end(key)
                found[key] = self._outcomes[key]
        return found

    def keep(self, outcomes: Mapping[str, Outcome]) -> None:
        """Keeps these, and forgets others for them."""
        for key, outcome in outcomes.items():
            if key not in self._outcomes:
                self._num_characters += len(key) + len(str(outcome))
                self._outcomes[key] = outcome
        while len(self._outcomes) > self._max_number or self._num_characters > self._max_characters:
            key, outcome = self._outcomes.popitem(last=False)
            self._num_characters -= len(key) + len(str(outcome))
