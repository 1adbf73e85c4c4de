"""An engine process with the fake runner: `python fake_engine.py ENDPOINT`.

FAKE_ENGINE_HANGS: how its first step hangs, a name of `HANGS`; by default it does not.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading

import zmq

from millstream.core.plan import Plan, StepOutput
from millstream.parent import exit_with_parent
from millstream.runtime.engine_side import run_engine
from millstream.runtime.stuck_stacks import show_stacks_when_asked
from tests.fakes import FakeRunner, fake_info


def waits() -> None:
    """Waits in Python code."""
    threading.Event().wait()


def keeps_the_interpreter() -> None:
    """Waits in native code, for a lock that it has, and lets no Python code run meanwhile."""
    lock, library = ctypes.create_string_buffer(64), ctypes.PyDLL(None)
    for _ in range(2):
        library.pthread_mutex_lock(lock)


HANGS = {hang.__name__: hang for hang in (waits, keeps_the_interpreter)}


class HangingRunner(FakeRunner):
    """Never ends its first step."""

    def step(self, plan: Plan) -> StepOutput:
        HANGS[os.environ["FAKE_ENGINE_HANGS"]]()
        raise AssertionError("it went on")


if __name__ == "__main__":
    exit_with_parent()
    show_stacks_when_asked()
    kind = HangingRunner if "FAKE_ENGINE_HANGS" in os.environ else FakeRunner
    run_engine(
        context=zmq.Context.instance(),
        endpoint=sys.argv[1],
        build_runner=lambda: kind(fake_info()),
        max_running=4,
    )
