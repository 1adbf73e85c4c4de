"""An engine that hangs says in which call, before it is ended."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from millstream.errors import EngineUnavailable
from millstream.runtime.host import ProcessHost
from millstream.runtime.stuck_stacks import stacks_of
from millstream.runtime.supervised import supervised_client
from tests.runtime.conftest import begin, collect
from tests.runtime.fake_engine import HANGS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there are no files in memory")


@pytest.mark.parametrize("hang", HANGS)
async def test_an_engine_that_is_stuck_says_where(
    hang: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("FAKE_ENGINE_HANGS", hang)
    command = [sys.executable, str(Path(__file__).with_name("fake_engine.py"))]
    host = ProcessHost(command, environment={})
    client = supervised_client(
        host, max_running=1, max_waiting=0, engine_timeout=0.5, max_restarts=0
    )
    client.start()
    await client.wait_ready()
    stream = begin(client)
    with pytest.raises(EngineUnavailable):
        await collect(stream)
    stream.close()
    await client.stop()
    (said,) = [record.getMessage() for record in caplog.records if "stuck" in record.getMessage()]
    assert f"in {hang}" in said, said
    assert "in run_engine" in said


async def test_who_cannot_be_asked_is_not_harmed() -> None:
    silent = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1)
    assert await stacks_of(silent.pid) == ""
    _, _ = await silent.communicate(b"\n")
    assert silent.returncode == 0
    assert await stacks_of(silent.pid) == "", "it is gone"
