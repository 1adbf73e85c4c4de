"""The engine as a process of its own. Started by the server, never by hand."""

from __future__ import annotations

import gc
import signal
from pathlib import Path

import zmq

from millstream.log import configure_logging
from millstream.model.build import runner_factory
from millstream.parent import exit_with_parent
from millstream.runtime.engine_side import run_engine
from millstream.runtime.start_reports import StartReports
from millstream.runtime.stuck_stacks import show_stacks_when_asked
from millstream.settings import Settings


def run(*, settings: str, folder: str, endpoint: str) -> None:
    """Loads the model in `folder` and serves `endpoint`. settings: JSON of Settings."""
    exit_with_parent()
    show_stacks_when_asked()
    # Ctrl-C is the server's to handle; it tells us when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = Settings.model_validate_json(settings)
    configure_logging(options.log_level, form=options.log_format)
    reports = StartReports()
    try:
        run_engine(
            context=zmq.Context.instance(),
            endpoint=endpoint,
            build_runner=runner_factory(Path(folder), options, report=reports),
            max_running=options.max_concurrent_requests,
            max_queue_seconds=options.max_queue_seconds,
            speculate=options.speculate,
            reports=reports,
        )
    finally:
        # Else the interpreter looks for garbage in all that was ever imported before it ends.
        gc.freeze()
