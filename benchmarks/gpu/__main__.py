"""Checks and figures on a CUDA device: `PYTHONPATH=server python -m benchmarks.gpu [--json FILE]`.

Takes up to eight minutes. Each part runs in a process of its own. `--dry-run` runs the same code on
tiny shapes on the CPU, in one process and in seconds; its figures mean nothing. The exit status is
1 if a check failed.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.gpu.parts import describe, parts
from benchmarks.gpu.processes import run_apart
from benchmarks.gpu.report import Report
from benchmarks.gpu.stand_ins import install

_SECONDS = 7 * 60.0  # after this no check is begun
_PART_SECONDS = {  # the same of one part, or its part of what is left, whichever is more
    "exactness": 110.0,
    "speed": 110.0,
    "server": 120.0,
    "ablation": 100.0,
}
_GRACE = 45.0  # for the check that a part is at by then


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--json", type=Path, help="write the table there, too")
    parser.add_argument("--only", help=f"parts whose names begin so: {', '.join(_PART_SECONDS)}")
    parser.add_argument("--part", help="this part alone, in this process")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="then no check is begun")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="        %(name)s: %(message)s")
    for name in ("transformers", "ContinuousBatchingLogger"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not arguments.dry_run and not torch.cuda.is_available():
        print("there is no CUDA device here; --dry-run runs on the CPU", file=sys.stderr)
        return 2
    device = torch.device("cpu" if arguments.dry_run else "cuda")
    all_parts, missing = parts(is_dry=arguments.dry_run), install()
    names = [name for name in all_parts if name.startswith(arguments.only or "")]
    if not names or arguments.part not in (None, *all_parts):
        parser.error(f"the parts are {', '.join(all_parts)}")
    signal.signal(signal.SIGTERM, _end_children)
    if arguments.part is not None:
        report = Report(arguments.seconds, file=arguments.json)
        all_parts[arguments.part](report, device)
        return int(report.num_failed > 0)
    report = Report(arguments.seconds, file=arguments.json)
    describe(report, device, missing=missing)
    if arguments.dry_run:
        for name in names:
            all_parts[name](report, device)
    else:
        _run_apart(report, names, arguments.seconds)
    print("\n" + report.table())
    return int(report.num_failed > 0)


def _run_apart(report: Report, names: list[str], seconds: float) -> None:
    """Runs the parts one after the other until so many seconds are over."""
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names):
            left = share(name, end - time.monotonic(), num_parts=len(names) - number)
            if left <= 0:
                report.add(name, "not run", "no time was left", status="SKIPPED")
                continue
            file = Path(folder) / f"{number}.json"
            command = command_of(name, file, seconds=left)
            run_apart(report, name, command, file, seconds=left + _GRACE)


def share(part: str, seconds: float, *, num_parts: int) -> float:
    """Seconds of the next part, of those that it and the parts after it have together."""
    return min(seconds, max(_PART_SECONDS[part.split()[0]], seconds / num_parts))


def _end_children(_signal: int, _frame: object) -> None:
    # SIGTERM would end this process at once and leave those that it has started running.
    sys.exit("ended by SIGTERM")


def command_of(part: str, file: Path, *, seconds: float, is_dry: bool = False) -> list[str]:
    """The command that runs one part, in a process of its own."""
    options = ["--part", part, "--json", str(file), "--seconds", f"{seconds:.0f}"]
    return [sys.executable, "-m", "benchmarks.gpu", *options, *["--dry-run"] * is_dry]


if __name__ == "__main__":
    sys.exit(main())
