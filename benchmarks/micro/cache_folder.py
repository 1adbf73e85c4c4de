"""What --cache-folder gains, and what it costs the steps of others.

Run: python -m benchmarks.micro.cache_folder [--model NAME] [--threads N] [--tokens N]

First the time to the first token of a conversation's next turn: with nothing of its history known,
with the history in memory, and with it in files, which the system has in its own cache or has to
read from the disk. Then steps in which eight sequences decode, while now and then one ends and
another comes, with and without files in turns: how long the engine takes from one step's end to the
next, for steps without a prompt.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.models import find_model
from benchmarks.steps import run_step
from millstream.core.archive import BlockArchive
from millstream.core.blocks import BlockPool
from millstream.core.request import Request, SamplingParams
from millstream.core.scheduler import Scheduler
from millstream.model.build import runner_factory
from millstream.model.loading.source import resolve
from millstream.model.runner import ModelRunner
from millstream.settings import DEMO_MODEL, Settings

ROWS = 8
ANSWER = 64


class Serving:
    """A scheduler that begins with nothing in memory, over a runner."""

    def __init__(self, runner: ModelRunner, archive: BlockArchive | None) -> None:
        self._runner, self._archive = runner, archive
        info = runner.info
        self.scheduler = Scheduler(
            pool=BlockPool(num_blocks=info.num_blocks, block_size=info.block_size),
            max_running=ROWS,
            max_step_tokens=info.max_step_tokens,
            archive=archive,
        )
        self.gaps: list[float] = []  # seconds, of turns of the loop that only decode
        self.num_cached = 0

    def turn(self) -> bool:
        """What the engine's loop does between two looks at its inbox; whether a token came."""
        started = time.perf_counter()
        is_saving = self.scheduler.save_blocks()
        plan = self.scheduler.plan()
        if plan is None:
            if self._archive is not None and (is_saving or self.scheduler.has_work):
                self._archive.wait(0.001)
            return False
        events = self.scheduler.commit(plan, run_step(self._runner, plan))
        if all(len(chunk.tokens) == 1 for chunk in plan.chunks):
            self.gaps.append(time.perf_counter() - started)
        self.num_cached = events[-1].num_cached if events else 0
        return bool(events)

    def first_token(self, request: Request) -> float:
        """Seconds to the first token of a request; the rest of it is computed after that."""
        started = time.perf_counter()
        self.scheduler.add(request)
        while not self.turn():
            pass
        seconds = time.perf_counter() - started
        while self.scheduler.has_work or self.scheduler.save_blocks():
            self.turn()
        return seconds


def request_of(number: int, prompt: tuple[int, ...], *, max_tokens: int = 4) -> Request:
    sampling = SamplingParams(temperature=0.0)
    return Request(id=number, prompt=prompt, sampling=sampling, max_tokens=max_tokens)


def prompt_of(runner: ModelRunner, number: int, length: int) -> tuple[int, ...]:
    """A prompt that shares no block with those of other numbers."""
    size = runner.info.vocab_size - 100
    return tuple((position * 37 + number * 101) % size + 50 for position in range(length))


def forget_files(folder: Path) -> None:
    """Lets the system forget what it has read of the files, so that they come from the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def measure_first_tokens(runner: ModelRunner, folder: Path, length: int, *, rounds: int) -> None:
    """Prints the median time to the first token of each kind of next turn."""
    times: dict[str, list[float]] = {}
    for number in range(1, rounds + 1):
        history = prompt_of(runner, number, length)
        next_turn = (*history, *prompt_of(runner, number + 1000, 20))
        kept = Serving(runner, runner.archive)
        kept.first_token(request_of(number, history))
        kinds = [("cold", Serving(runner, None)), ("from memory", kept)]
        kinds += [("from files", Serving(runner, runner.archive))]
        kinds += [("from the disk", Serving(runner, runner.archive))]
        for kind, serving in kinds:
            if kind == "from the disk":
                forget_files(folder)
            seconds = serving.first_token(request_of(100 + number, next_turn))
            times.setdefault(kind, []).append(seconds)
            assert (serving.num_cached > length - 32) == (kind != "cold"), serving.num_cached
    for kind, found in times.items():
        low, high = min(found) * 1e3, max(found) * 1e3
        print(f"  {kind:14} {statistics.median(found) * 1e3:8.1f} ms   ({low:.1f} to {high:.1f})")


def measure_steps(runner: ModelRunner, seconds: float, *, rounds: int) -> None:
    """Prints how long turns of the loop take that only decode, with files and without."""
    gaps: dict[str, list[float]] = {"without": [], "with": []}
    number = 10_000
    for _ in range(rounds):
        for kind in gaps:
            serving = Serving(runner, runner.archive if kind == "with" else None)
            deadline = time.perf_counter() + seconds / rounds
            num_running = 0
            while time.perf_counter() < deadline:
                if num_running < ROWS and len(serving.gaps) % (ANSWER // ROWS) == 0:
                    number += 1
                    prompt = prompt_of(runner, number, 256)
                    serving.scheduler.add(request_of(number, prompt, max_tokens=ANSWER))
                serving.turn()
                num_running = serving.scheduler.statistics().num_running
            gaps[kind] += serving.gaps
    for kind, found in gaps.items():
        if not found:
            print(f"  {kind:8} no step without a prompt within {seconds:g} s")
            continue
        ordered = sorted(found)
        parts = [ordered[int(len(ordered) * part)] * 1e3 for part in (0.5, 0.9, 0.99)]
        shown = ", ".join(f"{part:.2f}" for part in parts)
        print(f"  {kind:8} {shown} ms (median, 9 of 10, 99 of 100; {len(found)} steps)")
    if runner.archive is not None:
        print(f"  {runner.archive.statistics(num_lost=0)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bench-500m", help="a benchmark model, demo or a folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1500, help="length of the history")
    parser.add_argument("--seconds", type=float, default=60.0, help="for the steps, of each kind")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    is_demo = options.model == DEMO_MODEL
    model = resolve(Settings()) if is_demo else find_model(options.model)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            model_id=str(model),
            threads=options.threads,
            kv_cache_memory=2 * 2**30,
            max_concurrent_requests=ROWS,
            cache_folder=Path(folder),
        )
        runner = runner_factory(model, settings)()
        print(
            f"{options.model}, {options.threads} threads, next turn after {options.tokens} tokens"
        )
        measure_first_tokens(runner, Path(folder), options.tokens, rounds=options.rounds)
        print(f"steps of {ROWS} sequences")
        measure_steps(runner, options.seconds, rounds=options.rounds)
        if runner.archive is not None:
            runner.archive.close(seconds=60)


if __name__ == "__main__":
    main()
