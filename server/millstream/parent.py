"""Children that end with their parent, however it ends and whatever they are doing then."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def exit_with_parent() -> None:
    """Ends this process when its parent is gone, which had given it a pipe as standard input."""
    die_with_parent()  # the rest is for systems that cannot, and for a parent gone already

    def watch() -> None:
        # Not sys.stdin.read(): its lock, held by a daemon thread, aborts an orderly exit.
        while os.read(descriptor, 1):
            pass
        os._exit(0)

    descriptor = sys.stdin.fileno()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def die_with_parent() -> None:
    """Lets the kernel kill this process when its parent ends, also one that is stopped or stuck.

    Does nothing where the kernel cannot. A parent that is gone already is not noticed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
