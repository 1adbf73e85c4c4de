"""The process of one server: started on a free port, waited for, ended as a whole.

Rules: a server that does not start or answer is a ServerProblem with the reason; servers run
offline, in a process group of their own that is ended with the block, whatever happens in it.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import os
import shlex
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import HOST, Server, ServerProblem, call
from benchmarks.progress import say

_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.1
_SAY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What all servers of a run share. start_seconds: how long a server may take to start."""

    model: Path
    threads: int
    cache: Path
    logs: Path
    start_seconds: float = 900.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A server that answers. start_seconds: from its start to its first healthy answer."""

    base_url: str
    start_seconds: float
    command: tuple[str, ...]
    environment: dict[str, str]

    @property
    def shown(self) -> str:
        """As one would type it."""
        own = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*own, shlex.join(self.command)])


@contextmanager
def running(server: Server, python: Path, setting: Setting, *, number: int) -> Iterator[Running]:
    """Start a server and end it with the block. number: of the turn. Raises ServerProblem."""
    words = _words(server, python, setting)
    command = tuple(word.format_map(words) for word in server.command) + server.flags
    own = {name: value.format_map(words) for name, value in server.environment.items()}
    if preload := _preload(server, words):
        own["LD_PRELOAD"] = preload
    log = setting.logs / f"{server.name.replace(' ', '-')}-{number}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        start = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", **own},
                start_new_session=True,
            )
        except OSError as error:
            raise ServerProblem(f"it cannot be started: {error}") from error
        try:
            base_url = f"http://{HOST}:{words['port']}"
            _wait_healthy(process, f"{base_url}/health", log, limit=setting.start_seconds)
            seconds = time.monotonic() - start
            yield Running(
                base_url=base_url, start_seconds=seconds, command=command, environment=own
            )
        finally:
            _end(process)


def _words(server: Server, python: Path, setting: Setting) -> dict[str, str]:
    """What stands for the names in braces; converts the model if the server needs that."""
    words = {
        "python": str(python),
        "bin": str(python.parent),
        "lib": str(python.parent.parent / "lib"),
        "cache": str(setting.cache / "peers" / server.name / "cache"),
        "model": str(setting.model),
        "port": _free_port(),
        "threads": str(setting.threads),
        "cpus": ",".join(map(str, sorted(os.sched_getaffinity(0))[: setting.threads])),
    }
    return {**words, "file": _converted(server, words, setting) if server.convert else ""}


def _converted(server: Server, words: dict[str, str], setting: Setting) -> str:
    """The model in the server's own format, made if it is not there or the model has changed."""
    facts = (setting.model / "model.safetensors").stat()
    identity = f"{setting.model} {facts.st_mtime_ns} {facts.st_size}"
    stamp = hashlib.sha256(identity.encode()).hexdigest()[:12]
    folder = setting.cache / "converted" / server.name
    file = folder / f"{setting.model.name}-{stamp}"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        call([word.format_map({**words, "file": str(partial)}) for word in server.convert])
        partial.rename(file)
    return str(file)


def _preload(server: Server, words: dict[str, str]) -> str:
    """For LD_PRELOAD: files that are there, libraries that the system finds by their name."""
    found = []
    for name in (name.format_map(words) for name in server.preload):
        path = name if Path(name).is_file() else ctypes.util.find_library(name)
        found += [path] if path else []
    return ":".join(found)


def _wait_healthy(process: subprocess.Popen[bytes], url: str, log: Path, *, limit: float) -> None:
    start = time.monotonic()
    spoken = start
    while (now := time.monotonic()) - start < limit:
        if process.poll() is not None:
            text = log.read_text(encoding="utf-8", errors="replace").strip()
            last = text.splitlines()[-1] if text else "no output"
            raise ServerProblem(f"it ended with code {process.returncode}: {last[:200]} ({log})")
        if now - spoken >= _SAY_SECONDS:
            spoken = now
            say(f"  starting for {now - start:.0f} s")
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(_POLL_SECONDS)
    raise ServerProblem(f"it was not ready after {limit:.0f} s ({log})")


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def _free_port() -> str:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return str(listener.getsockname()[1])
