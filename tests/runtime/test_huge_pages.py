"""In the engine's process, torch's large tensors lie in huge pages, where the system has them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
import zmq

from millstream.engine_command import ENGINE_ENVIRONMENT
from millstream.runtime.host import ProcessHost

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_PROGRAM = """
import sys, torch
weights = torch.ones(64 * 2**20, dtype=torch.uint8)
lines = open("/proc/self/smaps_rollup").read().splitlines()
kib = next(line.split()[1] for line in lines if line.startswith("AnonHugePages:"))
open(sys.argv[1], "w").write(kib)
"""


@pytest.mark.skipif(
    not _SETTING.exists() or "[never]" in _SETTING.read_text(encoding="ascii"),
    reason="the system has no transparent huge pages",
)
def test_weights_are_in_huge_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENGINE_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    found = tmp_path / "kib"
    command = [sys.executable, "-c", _PROGRAM, str(found)]
    host = ProcessHost(command, environment=ENGINE_ENVIRONMENT)

    async def run() -> str:
        await host.start(zmq.Context.instance(), host.endpoint())
        return await host.wait()

    assert asyncio.run(run()) == "engine process ended with status 0"
    assert int(found.read_text(encoding="ascii")) * 1024 > 60 * 2**20
