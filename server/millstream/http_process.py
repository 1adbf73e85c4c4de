"""What every process that serves HTTP does with itself, alone or as one of several."""

from __future__ import annotations

import gc
import os

from millstream.settings import Settings


def forget_secrets() -> None:
    """Takes them from the environment, which the engine's process and compilers inherit."""
    secrets = {n for n, field in Settings.model_fields.items() if field.exclude}
    for variable in list(os.environ):
        if variable.lower() in {f"millstream_{name}" for name in secrets}:
            del os.environ[variable]


def settle_garbage() -> None:
    """Keeps the collector's pauses out of the streams. Figures in docs/decisions.md."""
    # What was loaded stays, so no collection needs to walk through it again.
    gc.collect()
    gc.freeze()
    # One step of 2000 streams makes more objects than the default of 700 allows for.
    gc.set_threshold(10_000, 10, 10)
