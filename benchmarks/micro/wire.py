"""The HTTP process alone: chunks per second, CPU per chunk, and the time that it adds to each.

Run: python -m benchmarks.micro.wire [--streams 1 64 512 2000] [--variants plain logprobs]

The real server process, the real process boundary and real sockets; only the engine is replaced, by
one that emits a token for every running request in each step. First as fast as the client takes
them (throughput), then at a fixed share of that rate (latency). Server, engine and client share the
machine's cores, so "CPU us" (of the HTTP process, per chunk) says more than "chunks/s"; its
inverse, "per core", is what the process could do with a core of its own.

--against FOLDER plays every round with the sources of another checkout too, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from tokenizers import Tokenizer

import millstream
from benchmarks.measures import percentile
from benchmarks.micro.wire_client import TOKEN_TEXT, Load, Round, StreamError, Variant
from benchmarks.micro.wire_engine import Begin

ROOT = Path(__file__).parents[2]
_TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
VARIANTS: Mapping[str, Variant] = {
    "plain": Variant({}),
    # None begins as the token does: what is held back would be no event.
    "stops": Variant({"stop": ["\n\nUser:", "<|end|>", "a~"]}),
    "usage": Variant({"stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    "logprobs": Variant({"logprobs": True, "top_logprobs": 5}, mark=b'"top_logprobs"'),
    "tools": Variant({"tools": [_TOOL]}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """load: the share of the highest rate at which latency is measured; interval: or at one step
    in so many seconds. window: steps under way in throughput rounds."""

    streams: int
    seconds: float
    rounds: int
    window: int
    load: float
    interval: float | None


def play(load: Load, plan: Plan, variant: Variant) -> tuple[Round, Round]:
    """A throughput round and a latency round."""
    fast = load.play(Begin(plan.streams, None, plan.window), variant, seconds=plan.seconds)
    interval = plan.interval or plan.streams / (fast.chunks_per_s * plan.load)
    paced = load.play(Begin(plan.streams, interval, plan.window), variant, seconds=plan.seconds)
    return fast, paced


@contextlib.contextmanager
def run_server(source: Path, *settings: str, text: bytes = TOKEN_TEXT) -> Iterator[Load]:
    """A server whose package comes from `source`, with the fake engine behind it. text: what each
    answer says over and over, a token for each of its letters."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with tempfile.TemporaryDirectory(prefix="millstream-wire-") as folder:
        endpoint = f"ipc://{folder}/control"
        control = context.socket(zmq.PAIR)
        control.set_hwm(0)
        control.linger = 0
        control.bind(endpoint)
        model = Path(millstream.__file__).with_name("demo") / "model"
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        token_ids = ",".join(str(tokenizer.token_to_id(each)) for each in text.decode())
        script = str(Path(__file__).with_name("wire_server.py"))
        process = subprocess.Popen(
            [sys.executable, script, endpoint, token_ids, *_SETTINGS, *settings],
            env=os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{ROOT}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            # What it says before, if it says anything, is nothing we need.
            ready = next((line for line in process.stdout if " is ready on " in line), "")
            if not ready:
                raise StreamError("the server did not start")
            port = int(re.findall(r":(\d+)", ready)[-1])
            yield Load(port, process.pid, control)
        finally:
            process.terminate()
            process.communicate()
            control.close()
            context.term()


@contextlib.contextmanager
def run_servers(
    sources: Mapping[str, Path], http_workers: Sequence[int] = (1,)
) -> Iterator[dict[str, Load]]:
    """A server of each source with each number of HTTP processes, by what tables call it."""
    with contextlib.ExitStack() as stack:
        loads = {}
        for name, source in sources.items():
            for count in http_workers:
                # Sources that came before the setting do not know it.
                settings = [] if count == 1 else [f"http_workers={count}"]
                label = name if count == 1 else f"{name}, {count}"
                loads[label] = stack.enter_context(run_server(source, *settings))
        yield loads


_SETTINGS = (
    "port=0",
    "max_concurrent_requests=1024",
    "max_queue_size=8192",
    "log_level=warning",
    "graceful_termination_timeout=0",
)


def figures(rounds: Sequence[tuple[Round, Round]]) -> dict[str, float]:
    """The medians over rounds."""

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    fast, paced = [one for one, _ in rounds], [one for _, one in rounds]
    cpu = median([one.cpu_us for one in fast])
    return {
        "chunks_per_s": median([one.chunks_per_s for one in fast]),
        "tokens_per_chunk": median([one.tokens / one.events for one in fast]),
        "tokens_per_s": median([one.tokens_per_s for one in fast]),
        "token_us": median([one.token_us for one in fast]),
        "request_ms": median([one.request_ms for one in [*fast, *paced]]),
        "cpu_us": cpu,
        "chunks_per_core_s": 1e6 / cpu if cpu else 0.0,  # less than a tick of the clock
        "server_cores": median([one.server_cpu / one.seconds for one in fast]),
        "client_cores": median([one.client_cpu / one.seconds for one in fast]),
        "paced_chunks_per_s": median([one.chunks_per_s for one in paced]),
        "paced_tokens_per_chunk": median([one.tokens / one.events for one in paced]),
        "paced_cpu_us": median([one.cpu_us for one in paced]),
        "added_p50_ms": median([percentile(one.added, 50) for one in paced]) * 1000,
        "added_p99_ms": median([percentile(one.added, 99) for one in paced]) * 1000,
        "added_max_ms": max(one.added[-1] for one in paced) * 1000,
        "worst_stream_p50_ms": max(one.worst_stream for one in paced) * 1000,
        "itl_p50_ms": median([percentile(one.gaps or [0.0], 50) for one in paced]) * 1000,
        "itl_p99_ms": median([percentile(one.gaps or [0.0], 99) for one in paced]) * 1000,
    }


COLUMNS = {
    "chunks/s": ("chunks_per_s", 9, 0),
    "CPU us": ("cpu_us", 7, 1),
    "per core": ("chunks_per_core_s", 9, 0),
    "tok/chunk": ("tokens_per_chunk", 9, 2),
    "tok/s": ("tokens_per_s", 7, 0),
    "us/tok": ("token_us", 6, 1),
    "ms/req": ("request_ms", 6, 2),
    "| paced/s": ("paced_chunks_per_s", 9, 0),
    "CPU us ": ("paced_cpu_us", 7, 1),
    "p50 ms": ("added_p50_ms", 7, 2),
    "p99": ("added_p99_ms", 7, 2),
    "max": ("added_max_ms", 7, 1),
    "worst p50": ("worst_stream_p50_ms", 9, 2),
    "ITL p50": ("itl_p50_ms", 7, 1),
    "p99 ": ("itl_p99_ms", 7, 1),
}


def row(name: str, variant: str, streams: int, found: Mapping[str, float]) -> str:
    cells = (f"{found[key]:{size}.{digits}f}" for key, size, digits in COLUMNS.values())
    return f"{name:8} {variant:9} {streams:7}  " + "  ".join(cells)


def measure(
    sources: Mapping[str, Path],
    variants: Sequence[str],
    plans: Sequence[Plan],
    http_workers: Sequence[int] = (1,),
) -> list[dict[str, Any]]:
    """Every variant and plan on every source and number of HTTP processes, in turns."""
    results: list[dict[str, Any]] = []
    with run_servers(sources, http_workers) as loads:
        heads = "  ".join(f"{head:>{size}}" for head, (_, size, _) in COLUMNS.items())
        print(f"{'server':8} {'variant':9} {'streams':>7}  {heads}")
        for variant in variants:
            for plan in plans:
                rounds: dict[str, list[tuple[Round, Round]]] = {name: [] for name in loads}
                for _ in range(plan.rounds):
                    for name, load in loads.items():
                        rounds[name].append(play(load, plan, VARIANTS[variant]))
                for name, pairs in rounds.items():
                    found = figures(pairs)
                    labels = {"server": name, "variant": variant, "streams": plan.streams}
                    results.append({**labels, **found})
                    print(row(name, variant, plan.streams, found), flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro.wire")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 64, 512, 2000])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain"])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--window", type=int, default=2, help="steps under way in throughput")
    parser.add_argument("--load", type=float, default=0.5, help="rate of the latency rounds")
    parser.add_argument("--interval", type=float, help="or seconds from step to step")
    parser.add_argument("--http-workers", type=int, nargs="+", default=[1], help="1 2: in turns")
    parser.add_argument("--against", type=Path, help="a folder that holds another `millstream`")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args(arguments)
    sources = {"this": Path(millstream.__file__).parents[1]}
    if options.against:
        sources = {"other": options.against.resolve()} | sources
    plans = [
        Plan(
            streams=streams,
            seconds=options.seconds,
            rounds=options.rounds,
            window=min(options.window, streams),
            load=options.load,
            interval=options.interval,
        )
        for streams in options.streams
    ]
    results = measure(sources, options.variants, plans, options.http_workers)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
