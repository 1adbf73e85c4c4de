"""Checks and figures on a CUDA device: `PYTHONPATH=server python -m benchmarks.gpu [--json FILE]`.

Takes up to eight minutes. `--dry-run` runs the same code on tiny shapes on the CPU, in seconds; its
figures mean nothing. The exit status is 1 if a check failed.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.stand_ins import install

_SECONDS = 7 * 60.0  # after this no check is begun


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--json", type=Path, help="write the table there, too")
    parser.add_argument("--only", choices=["exactness", "speed"], help="a part of it")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="        %(name)s: %(message)s")
    for name in ("transformers", "ContinuousBatchingLogger"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not arguments.dry_run and not torch.cuda.is_available():
        print("there is no CUDA device here; --dry-run runs on the CPU", file=sys.stderr)
        return 2
    report = Report(_SECONDS)
    device = torch.device("cpu" if arguments.dry_run else "cuda")
    _describe(report, device, install())
    if arguments.only != "speed":
        _check_exactness(report, device)
    if arguments.only != "exactness":
        _measure_speed(report, device)
    print("\n" + report.table())
    if arguments.json:
        report.save(arguments.json)
    return int(report.num_failed > 0)


def _describe(report: Report, device: torch.device, missing: list[str]) -> None:
    is_cuda = device.type == "cuda"
    report.add("device", torch.cuda.get_device_name() if is_cuda else "cpu")
    for name in ("torch", "transformers", "triton"):
        try:
            report.add(name, version(name))
        except PackageNotFoundError:
            report.add(name, "-", "not installed")
    if missing:
        report.add("stand-ins", str(len(missing)), f"for {', '.join(missing)}")


def _check_exactness(report: Report, device: torch.device) -> None:
    # Imported after the stand-ins are in place, and where a failure is a line of the table.
    is_dry = device.type == "cpu"

    def check(family: str, dtype: torch.dtype) -> None:
        exactness = importlib.import_module("benchmarks.gpu.exactness")
        exactness.check_family(report, family, device, dtype, is_fast=is_dry)

    families = ("llama", "gemma2") if is_dry else _families(report)
    for dtype in (torch.float32, torch.bfloat16):
        for family in families:
            name = str(dtype).removeprefix("torch.")
            report.run(f"{family} {name}", lambda f=family, d=dtype: check(f, d))  # type: ignore[misc]


def _families(report: Report) -> tuple[str, ...]:
    found: list[str] = []
    report.run(
        "import of the engine",
        lambda: found.extend(importlib.import_module("benchmarks.gpu.exactness").FAMILIES),
    )
    return tuple(found)


def _measure_speed(report: Report, device: torch.device) -> None:
    def measure() -> None:
        speed = importlib.import_module("benchmarks.gpu.speed")
        size = (
            speed.Size(
                device=device,
                dtype=torch.float32,
                shapes=("tiny",),
                rows=(1, 4),
                context=64,
                prompt=64,
                copied_bytes=2**20,
                matrix=64,
                rounds=1,
            )
            if device.type == "cpu"
            else speed.Size(
                device=device,
                dtype=torch.bfloat16,
                shapes=("1B", "8B"),
                rows=(1, 8, 64, 256),
                context=1024,
                prompt=4096,
                copied_bytes=2**32,
                matrix=8192,
                rounds=8,
            )
        )
        roof = speed.Roof()
        report.run("roof", lambda: speed.measure_roof(report, roof, size))
        for shape in size.shapes:
            report.run(shape, lambda s=shape: speed.measure_shape(report, roof, size, s))  # type: ignore[misc]

    report.run("speed", measure)


if __name__ == "__main__":
    sys.exit(main())
