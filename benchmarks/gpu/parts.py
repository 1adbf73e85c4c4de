"""The parts that the checks consist of, each of which can run without the others."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.server_packages import missing_packages

# Everything else is imported when a part runs: after the stand-ins are in place, and where a
# failure is a line of the table.

Part = Callable[[Report, torch.device], None]

_FAST_FAMILIES = ("llama", "gemma2")


def describe(report: Report, device: torch.device, *, missing: list[str]) -> None:
    """The device and the versions of what is used. missing: packages that stand-ins are for."""
    is_cuda = device.type == "cuda"
    report.add("device", torch.cuda.get_device_name() if is_cuda else "cpu")
    for name in ("torch", "transformers", "triton"):
        try:
            report.add(name, version(name))
        except PackageNotFoundError:
            report.add(name, "-", "not installed")
    if missing:
        report.add("stand-ins", str(len(missing)), f"for {', '.join(missing)}")


def _check_exactness(report: Report, device: torch.device, *, dtype: torch.dtype) -> None:
    is_dry = device.type == "cpu"

    def check() -> None:
        exactness = importlib.import_module("benchmarks.gpu.exactness")
        for family in _FAST_FAMILIES if is_dry else exactness.FAMILIES:
            name = f"{family} {str(dtype).removeprefix('torch.')}"
            one = partial(exactness.check_family, report, family, device, dtype, is_fast=is_dry)
            report.run(name, one)

    report.run("exactness", check)


def _measure_speed(report: Report, device: torch.device, *, shape: str) -> None:
    def measure() -> None:
        speed = importlib.import_module("benchmarks.gpu.speed")
        size, roof = _size(speed, device), speed.Roof()
        report.run("roof", lambda: speed.measure_roof(report, roof, size))
        report.run(shape, lambda: speed.measure_shape(report, roof, size, shape))

    report.run("speed", measure)


def _measure_ablation(report: Report, device: torch.device, *, shape: str) -> None:
    def measure() -> None:
        ablation = importlib.import_module("benchmarks.gpu.ablation")
        ablation.measure_without_each(report, _size(ablation, device), shape)

    report.run("without each optimisation", measure)


def _measure_server(report: Report, device: torch.device, *, shape: str) -> None:
    if missing := missing_packages():
        note = f"needs {', '.join(missing)}"
        report.add(f"{shape} server over HTTP", "not run", note, status="SKIPPED")
        return

    def measure() -> None:
        served = importlib.import_module("benchmarks.gpu.served")
        served.measure_server(report, _size(served, device), shape)

    report.run(f"{shape} server over HTTP", measure)


def _size(module: ModuleType, device: torch.device) -> object:
    """The Size, which the module knows, of figures on the device."""
    if device.type == "cpu":
        return module.Size(
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
    return module.Size(
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


def parts(*, is_dry: bool) -> dict[str, Part]:
    """All of them by name, what matters most first."""
    found: dict[str, Part] = {
        f"exactness {str(dtype).removeprefix('torch.')}": partial(_check_exactness, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    }
    shapes = ("tiny",) if is_dry else ("1B", "8B")
    found |= {f"speed {shape}": partial(_measure_speed, shape=shape) for shape in shapes}
    # What users get comes before what each optimisation is worth; but the weights of the larger
    # shape have to be written and read, 16 GB, before anything is known.
    found |= {f"server {shape}": partial(_measure_server, shape=shape) for shape in shapes[:1]}
    found |= {f"ablation {shape}": partial(_measure_ablation, shape=shape) for shape in shapes}
    found |= {f"server {shape}": partial(_measure_server, shape=shape) for shape in shapes[1:]}
    return found
