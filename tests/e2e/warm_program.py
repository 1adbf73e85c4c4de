"""`millstream serve` without the seconds that its imports take, twice, in every start.

Rules:
1. This program imports everything once, in one thread, and forks for each server that it is asked
   for. What is forked runs the command line as it is. Its engines are processes of its own; the
   first few are forked as well, before the server has threads, and wait until they are started.
2. Each request is one message of a socket: the arguments and the environment as JSON, and three
   files: standard output, standard error, and a pipe that is told the server's process id and, when
   it is over, its status.
3. Whoever is forked ends with the one that forked it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
import transformers.utils.chat_template_utils
import zmq

from millstream import cli, engine_command, engine_process
from millstream.parent import die_with_parent
from millstream.runtime.host import ProcessHost
from millstream.text import template_trial
from tests.e2e.warm import ENGINE_NAME, TRIAL_SECONDS

_LARGEST_REQUEST = 2**20
_NUM_ENGINES = 5  # of a server; more are started as anywhere
# What the server imports in its threads.
_IMPORTED = (engine_process, transformers.AutoTokenizer, transformers.utils.chat_template_utils)


class ForkedHost(ProcessHost):
    """Its engines wait in processes that were forked before there were any threads."""

    waiting: ClassVar[list[tuple[int, int]]] = []
    """The processes, and the pipes that they read their commands from."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        super().__init__(command, environment=environment)
        self._forked: int | None = None

    @property
    def pid(self) -> int | None:
        return self._forked or super().pid

    async def start(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        if not self.waiting:
            await super().start(context, endpoint)
            return
        self._forked, pipe = self.waiting.pop()
        order = [[*self._command[3:], endpoint], self._environment]
        os.write(pipe, json.dumps(order).encode() + b"\n")

    async def wait(self) -> str:
        if self._forked is None:
            return await super().wait()
        _, status = await asyncio.to_thread(os.waitpid, self._forked, 0)
        self._forked = None
        code = os.waitstatus_to_exitcode(status)
        return f"engine process ended with {f'signal {-code}' if code < 0 else f'status {code}'}"

    def kill(self) -> None:
        if self._forked is None:
            super().kill()
        else:
            os.kill(self._forked, signal.SIGKILL)


def _engine(pipe: int) -> None:
    """An engine that waits for its command; the pipe stays open as long as its server lives."""
    die_with_parent()
    os.dup2(pipe, 0)
    os.close(pipe)
    line = b""
    while not line.endswith(b"\n"):
        if not (part := os.read(0, 1)):
            os._exit(0)
        line += part
    os.setsid()
    Path("/proc/self/comm").write_text(ENGINE_NAME)
    arguments, environment = json.loads(line)
    os.environ.update(environment)
    torch.seed()
    sys.exit(cli.main(arguments))


def _server(arguments: Sequence[str]) -> None:
    die_with_parent()
    for _ in range(_NUM_ENGINES):
        end, start = os.pipe()
        engine = os.fork()
        if not engine:
            for each in (start, *(pipe for _, pipe in ForkedHost.waiting)):
                os.close(each)
            _engine(end)
        os.close(end)
        ForkedHost.waiting.append((engine, start))
    engine_command.ProcessHost = ForkedHost  # type: ignore[misc]
    seconds = os.environ.get(TRIAL_SECONDS, template_trial.TRIAL_SECONDS)
    template_trial.TRIAL_SECONDS = float(seconds)
    sys.exit(cli.main(["serve", *arguments]))


def _guard(arguments: Sequence[str], environment: Mapping[str, str], files: Sequence[int]) -> None:
    """Starts the server and tells how it ended."""
    die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output, errors, status = files
    os.dup2(output, 1)
    os.dup2(errors, 2)
    for each in (output, errors):
        os.close(each)
    os.environ.clear()
    os.environ.update(environment)
    server = os.fork()
    if not server:
        os.close(status)
        _server(arguments)
    # Who waits for the end of the server's output does not wait for this process.
    for each in (1, 2):
        os.close(each)
    os.write(status, f"{server}\n".encode())
    _, ended = os.waitpid(server, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(ended)}\n".encode())
    os._exit(0)


def main() -> None:
    """Starts servers until nobody can ask for one."""
    die_with_parent()
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads, of which a fork keeps one"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A collection would write to what is shared with this process, which copies it.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        while True:
            request, files, _, _ = socket.recv_fds(requests, _LARGEST_REQUEST, 3)
            if not request:
                return
            if not os.fork():
                requests.close()
                _guard(*json.loads(request), files)
            for each in files:
                os.close(each)


if __name__ == "__main__":
    main()
