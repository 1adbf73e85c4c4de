"""The parent's end of one child that checks grammars."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from millstream.text.grammars.answer_formats import GrammarError

Part: TypeAlias = tuple[str, Any]
"""A kind of grammar and its value, as `answer_formats.grammar_text()` takes them."""

Outcome: TypeAlias = str | GrammarError
"""A grammar as the engine takes it, or why it cannot be used."""

_SLOW_NICENESS = 10
_MAX_LINE = 2**24  # bytes of an answer


class GrammarProcess:
    """One child, and what it was asked last. One caller at a time; `end()` when done."""

    def __init__(self, process: asyncio.subprocess.Process, *, limits: tuple[float, int]) -> None:
        """For `spawn()`."""
        self._process = process
        self._max_seconds, self._max_bytes = limits
        self._is_waiting = True
        self._is_slow = False

    @classmethod
    async def spawn(cls, *, max_seconds: float, max_bytes: int) -> GrammarProcess:
        """A new child. max_seconds: CPU time for one `check()`. max_bytes: address space.

        Raises OSError if there can be none, or it ends before it is ready.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "millstream.workers.grammar_child", str(max_seconds), str(max_bytes)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_MAX_LINE,
            # Ctrl-C in a terminal is for the server, which ends its children itself.
            start_new_session=True,
        )
        child = cls(process, limits=(max_seconds, max_bytes))
        try:
            await child._wait_ready()
        except BaseException:
            await child.end()
            raise
        return child

    @property
    def is_usable(self) -> bool:
        """Whether it can be asked: it lives, owes no answer, and has the server's priority."""
        return self._is_waiting and self._process.returncode is None

    async def check(self, parts: Sequence[Part]) -> list[Outcome]:
        """One outcome for each part, up to the first error. Cancelled, leaves it unusable.

        Raises ChildProcessError if it was gone before it began.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._is_waiting = False
        outcomes: list[Outcome] = []
        self._process.stdin.write(json.dumps(list(parts)).encode() + b"\n")
        await self._wait_ready()
        while len(outcomes) < len(parts):
            line = await self._process.stdout.readline()
            reply = json.loads(line) if line else {"error": await self._cause_of_death()}
            if "error" in reply:
                outcomes.append(GrammarError(reply["error"]))
                break
            outcomes.append(reply["text"])
        self._is_waiting = not self._is_slow
        return outcomes

    def pause(self) -> None:
        """Stops its work where it is."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on, but streams first. That cannot be taken back: it is not used again."""
        self._is_slow = True
        # It may have been killed a moment ago, of which nobody has been told.
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _SLOW_NICENESS)
        self._signal(signal.SIGCONT)

    async def end(self) -> None:
        """Kills it and waits until it is gone."""
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def _wait_ready(self) -> None:
        assert self._process.stdout is not None
        if not await self._process.stdout.readline():
            raise ChildProcessError(f"it ended with status {await self._process.wait()}")

    async def _cause_of_death(self) -> str:
        ended = await self._process.wait()
        if ended == -signal.SIGPROF:
            return f"checking it takes more than {self._max_seconds:g} s"
        if ended in (-signal.SIGSEGV, -signal.SIGBUS):
            return "it is nested too deeply"
        return f"checking it takes more than {self._max_bytes >> 20} MiB of memory"
