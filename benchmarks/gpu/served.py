"""The server over HTTP, as its users have it, and the engine alone with the same work.

A server process with random weights is started three times: the first start may compile kernels and
time products; the second finds all that in its caches; the third has several HTTP processes. Each
load keeps a number of streams full with answers to prompts of random words.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.closed_loop import run_alone
from benchmarks.gpu.engine import free_memory, make_llama, make_runner
from benchmarks.gpu.load import Prompts, Served, play
from benchmarks.gpu.model_folder import write_model
from benchmarks.gpu.report import Report
from benchmarks.gpu.sizes import Size
from benchmarks.peers import HOST, Server, ServerProblem
from benchmarks.servers import Running, Setting, running

_LOG_LINES = 30
_LEAST_START_SECONDS = 30.0  # for a start that is begun at all


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What the server is asked for. prompt, answer: tokens; seconds: of each load; http_workers: of
    the server that has several; flags: of all servers, besides those that every machine gets."""

    streams: tuple[int, ...]
    prompt: int
    answer: int
    seconds: float
    http_workers: int
    flags: tuple[str, ...]


_WORK = Work(
    streams=(1, 16, 64, 256),
    prompt=128,
    answer=128,
    seconds=3.0,
    http_workers=4,
    flags=("--dtype", "bfloat16"),
)
_DRY = Work(
    streams=(1, 4),
    prompt=48,
    answer=16,
    seconds=0.3,
    http_workers=2,
    flags=("--dtype", "float32", "--threads", "1", "--kv-cache-memory", "64MiB"),
)


@dataclass(kw_only=True, slots=True)
class _Bench:
    """What the checks of one part share. rates: tokens/s by HTTP processes and streams."""

    report: Report
    shape: str
    work: Work
    setting: Setting
    prompts: Prompts
    rates: dict[tuple[int, int], float] = field(default_factory=dict)


def measure_server(report: Report, size: Size, shape: str) -> None:
    """Starts, loads with one and with several HTTP processes, and the engine alone.

    Raises ServerProblem if the first start fails, since the others then would.
    """
    work = _DRY if size.device.type == "cpu" else _WORK
    with tempfile.TemporaryDirectory(prefix="millstream-model-") as name:
        folder = Path(name)
        prompts = Prompts.of(write_model(size, shape, folder), work.prompt)
        gc.collect()
        if size.device.type == "cuda":
            torch.cuda.empty_cache()  # the server takes what is free
        setting = Setting(model=folder, threads=1, cache=folder, logs=folder / "logs")
        bench = _Bench(report=report, shape=shape, work=work, setting=setting, prompts=prompts)
        _measure_served(bench, 1, "first start")
        report.run(f"{shape} second start", partial(_measure_start, bench))
        several = partial(_measure_served, bench, work.http_workers, "start")
        report.run(f"{shape} server, {work.http_workers} HTTP processes", several)
    report.run(f"{shape} engine alone", partial(_measure_alone, bench, size))


def _measure_start(bench: _Bench) -> None:
    with _running(bench, 1) as server:
        note = "command to ready, caches warm"
        bench.report.add(f"{bench.shape} second start", f"{server.start_seconds:.1f} s", note)


def _measure_served(bench: _Bench, http_workers: int, start: str) -> None:
    """One server and all loads on it; a load that fails does not keep the others from theirs."""
    report, name = bench.report, f"{bench.shape} server, {_processes(http_workers)}"
    with _running(bench, http_workers) as server:
        report.add(f"{name}, {start}", f"{server.start_seconds:.1f} s", "command to ready")
        for streams in bench.work.streams:
            what = f"{name}, {_streams(streams)}"
            report.run(what, partial(_measure_load, bench, server, http_workers, streams, what))
        report.run(f"{name}, late kernels", partial(_report_late_kernels, report, server, name))


def _measure_load(
    bench: _Bench, server: Running, http_workers: int, streams: int, name: str
) -> None:
    work, port = bench.work, int(server.base_url.rpartition(":")[2])
    found: Served = play(
        port, bench.prompts, streams=streams, answer=work.answer, seconds=work.seconds
    )
    bench.rates[http_workers, streams] = found.tokens_per_s
    bench.report.add(name, f"{found.tokens_per_s:,.0f} tokens/s", found.shown)


def _report_late_kernels(report: Report, server: Running, name: str) -> None:
    """Kernels compiled since the server was ready; nothing where that is not known."""
    with urllib.request.urlopen(f"{server.base_url}/health", timeout=10) as answer:
        num_late = json.load(answer)["engine"]["num_late_kernels"]
    if num_late is not None:
        status = "FAILED" if num_late else "ok"
        report.add(f"{name}, kernels compiled while serving", str(num_late), status=status)


def _measure_alone(bench: _Bench, size: Size) -> None:
    """The engine in this process with the same streams, and which part of that came over HTTP."""
    work = bench.work
    model = make_llama(bench.shape, size.device, size.dtype)
    context = model.config.max_position_embeddings
    runner = make_runner(model, max_context=context, max_rows=max(work.streams))
    for streams in work.streams:
        alone = run_alone(
            runner,
            streams=streams,
            prompt=work.prompt,
            answer=work.answer,
            seconds=work.seconds,
        )
        shares = [
            f"over HTTP {rate / alone.tokens_per_s:.0%} with {_processes(http_workers)}"
            for (http_workers, number), rate in bench.rates.items()
            if number == streams
        ]
        note = "; ".join([f"{alone.period * 1e3:.2f} ms a step", *shares])
        what = f"{bench.shape} engine alone, {_streams(streams)}"
        bench.report.add(what, f"{alone.tokens_per_s:,.0f} tokens/s", note)
    free_memory(runner, size.device)


@contextmanager
def _running(bench: _Bench, http_workers: int) -> Iterator[Running]:
    """A server with so many HTTP processes. What it said is printed if it does not start."""
    command = (
        *("{python}", "-m", "millstream", "serve", "--model-id", "{model}", "--port", "{port}"),
        *("--host", HOST, "--store", "off", "--graceful-termination-timeout", "0"),
        *("--max-concurrent-requests", str(max(bench.work.streams)), *bench.work.flags),
        *("--http-workers", str(http_workers)),
    )
    server = Server(name="server", distributions=(), command=command)
    limit = max(bench.report.seconds_left, _LEAST_START_SECONDS)
    setting = replace(bench.setting, start_seconds=limit)
    try:
        with running(server, Path(sys.executable), setting, number=http_workers) as started:
            yield started
    except ServerProblem:
        for log in bench.setting.logs.glob(f"*-{http_workers}.log"):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            print(os.linesep.join(lines[-_LOG_LINES:]), flush=True)
        raise


def _processes(number: int) -> str:
    return f"{number} HTTP process" + "es" * (number > 1)


def _streams(number: int) -> str:
    return f"{number} stream" + "s" * (number > 1)
