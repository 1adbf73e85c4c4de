"""Everything that works beside one event loop."""

from __future__ import annotations

from millstream.workers.grammar_checks import GrammarChecks
from millstream.workers.threads import WorkerThreads


class Workers:
    """The threads and the grammar checks of one server. `stop()` when done."""

    def __init__(self) -> None:
        self.threads = WorkerThreads()
        self.grammars = GrammarChecks()

    async def stop(self) -> None:
        """Interrupts the threads and ends the children. What they work for must be cancelled."""
        self.threads.stop()
        await self.grammars.stop()
