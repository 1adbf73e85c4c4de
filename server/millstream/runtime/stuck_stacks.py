"""The stacks of an engine's process that is stuck, found out from outside.

The process sets aside a file in memory and lets a signal write the stacks there. That is done in C
and needs no interpreter, so it works while a call into a library keeps all Python code waiting. Who
asks sends the signal and reads the file through /proc. Where there is none, nobody is asked.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_NAME = "millstream-stacks"
_PATIENCE = 1.0
_PAUSE = 0.05


def show_stacks_when_asked() -> None:
    """For the process that may be asked. It also says where it stands when native code crashes."""
    faulthandler.enable()
    if sys.platform == "linux":
        faulthandler.register(signal.SIGUSR1, file=os.memfd_create(_NAME))


async def stacks_of(pid: int) -> str:
    """What a process says of all its threads, the innermost call first.

    Empty if it cannot be asked or says nothing within a second, as one that is stopped.
    """
    with suppress(OSError):  # it may have ended
        file = _file_of(pid)
        if file is not None:
            os.kill(pid, signal.SIGUSR1)
            return await _written(file)
    return ""


def _file_of(pid: int) -> Path | None:
    """The file that the process has set aside."""
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(FileNotFoundError):  # closed meanwhile
            if _NAME in os.readlink(descriptor):
                return descriptor
    return None


async def _written(file: Path) -> str:
    """The file's content once nothing is added any more."""
    clock = asyncio.get_running_loop().time
    until, text = clock() + _PATIENCE, ""
    while clock() < until:
        await asyncio.sleep(_PAUSE)
        before, text = text, _text_of(file)
        if text and text == before:
            break
    return text


def _text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")
