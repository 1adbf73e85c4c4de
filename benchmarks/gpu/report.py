"""A table that fills line by line; a check that fails is a line in it, and the next one runs."""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch


class Report:
    """Mutated by the checks. seconds: for all of them together; file: has the lines as JSON, as
    soon as they are there."""

    def __init__(self, seconds: float, file: Path | None = None) -> None:
        self._deadline = time.monotonic() + seconds
        self._file = file
        self.rows: list[dict[str, str]] = []

    def add(self, name: str, value: str, note: str = "", *, status: str = "ok") -> None:
        self.rows.append({"name": name, "value": value, "note": note, "status": status})
        print(f"{status:7} {name:46} {value:>16}  {note}", flush=True)
        self._save()

    def take_over(self, rows: list[dict[str, str]]) -> None:
        """Lines of another report, which are printed already."""
        self.rows += rows
        self._save()

    def expect(self, name: str, is_true: bool, note: str = "") -> None:  # noqa: FBT001
        self.add(name, "yes" if is_true else "NO", note, status="ok" if is_true else "FAILED")

    def run(self, name: str, check: Callable[[], None]) -> None:
        """Runs a check whose failures and length do not concern the others."""
        if time.monotonic() > self._deadline:
            self.add(name, "not run", "no time was left", status="SKIPPED")
            return
        started = time.monotonic()
        try:
            check()
        except Exception as error:  # whatever it is, the other checks can still say something
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            note = f"{reason} ({Path(where.filename).name}:{where.lineno})"
            self.add(name, "raised", note, status="FAILED")
        try:
            free_unused()
        except RuntimeError as error:  # a device that has failed says so again
            self.add(name, "memory kept", str(error)[:200], status="FAILED")
        print(f"        ({name}: {time.monotonic() - started:.1f} s)", flush=True)

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    @property
    def num_failed(self) -> int:
        return sum(row["status"] == "FAILED" for row in self.rows)

    def table(self) -> str:
        widths = [max(len(row[key]) for row in self.rows) for key in ("status", "name", "value")]
        lines = [
            f"| {row['status']:{widths[0]}} | {row['name']:{widths[1]}} "
            f"| {row['value']:>{widths[2]}} | {row['note']} |"
            for row in self.rows
        ]
        header = f"| {'':{widths[0]}} | {'check':{widths[1]}} | {'value':>{widths[2]}} | note |"
        rule = "|" + "|".join("-" * (width + 2) for width in (*widths, 4)) + "|"
        return "\n".join([header, rule, *lines])

    def _save(self) -> None:
        if self._file is not None:
            self._file.write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")


def seconds_of(compute: Callable[[], object], device: torch.device, *, rounds: int) -> float:
    """Best time of one call; all of the device's work included."""
    best = float("inf")
    for _ in range(rounds + 1):  # the first one warms up
        synchronize(device)
        started = time.perf_counter()
        compute()
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def free_unused() -> None:
    """Gives back what nobody uses any more: models, once fused, refer to themselves."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
