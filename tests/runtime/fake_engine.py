"""An engine process with the fake runner: `python fake_engine.py ENDPOINT`."""

from __future__ import annotations

import sys

import zmq

from millstream.parent import exit_with_parent
from millstream.runtime.engine_side import run_engine
from tests.fakes import FakeRunner, fake_info

if __name__ == "__main__":
    exit_with_parent()
    run_engine(
        context=zmq.Context.instance(),
        endpoint=sys.argv[1],
        build_runner=lambda: FakeRunner(fake_info()),
        max_running=4,
    )
