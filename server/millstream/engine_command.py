"""How a server starts its engine: the command, and variables of its environment."""

from __future__ import annotations

import sys
from pathlib import Path

from millstream.runtime.host import ProcessHost
from millstream.settings import Settings

# GNU OpenMP's threads spin for long while they wait for each other. Beside anything else that runs
# on their cores, and the HTTP side does, that takes the time of the one they wait for; not to spin
# at all costs a wake-up in every operation. Huge pages: a step reads all weights, and in pages of
# four KiB it waits for their addresses, too. Figures in docs/decisions.md.
ENGINE_ENVIRONMENT = {"GOMP_SPINCOUNT": "50000", "THP_MEM_ALLOC_ENABLE": "1"}
"""Variables of the engine's process, where the operator's environment does not set them."""


def engine_host(settings: Settings, folder: Path) -> ProcessHost:
    """The place of an engine that serves the model in `folder`. Secrets do not go there."""
    command = [sys.executable, "-m", "millstream", "engine"]
    command += ["--settings", settings.model_dump_json(), "--folder", str(folder)]
    return ProcessHost(command, environment=ENGINE_ENVIRONMENT)
