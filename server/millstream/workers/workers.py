"""Everything that works beside one event loop."""

from __future__ import annotations

from millstream.workers.grammar_checks import GrammarChecks
from millstream.workers.threads import WorkerThreads


class Workers:
    """The threads and the grammar checks of one server. `stop()` when done.

    bodies: one thread, so that many large bodies delay the event loop no more than one.
    """

    def __init__(self) -> None:
        self.threads = WorkerThreads()
        self.bodies = WorkerThreads(max_threads=1)
        self.grammars = GrammarChecks()

    async def stop(self) -> None:
        """Interrupts the threads and ends the children. What they work for must be cancelled."""
        self.threads.stop()
        self.bodies.stop()
        await self.grammars.stop()

    def join(self) -> None:
        """Waits until no thread is left; after `stop()`."""
        self.threads.join()
        self.bodies.join()
