"""The line at the foot of a terminal: what it says, and that it is gone when there is nothing."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import pty
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream import live_line
from millstream.log import configure_logging
from millstream.settings import Settings
from tests.runtime.conftest import EngineFactory, GatedRunner, begin, collect, until

LINE = re.compile(r"1 running, 0 waiting, [\d,]+ tokens/s, KV cache \d+%")


@pytest.fixture
def terminal() -> Iterator[tuple[io.TextIOWrapper, int]]:
    """What a program writes to, and where one reads what its user sees."""
    shown, end = pty.openpty()
    os.set_blocking(shown, False)
    with open(end, "w", encoding="utf-8") as out:
        yield out, shown
    os.close(shown)


def seen(shown: int) -> str:
    try:
        return os.read(shown, 10_000).decode()
    except BlockingIOError:
        return ""


async def test_it_is_there_while_something_runs(
    run_engine_client: EngineFactory,
    terminal: tuple[io.TextIOWrapper, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_line, "_SECONDS", 0.02)
    out, shown = terminal
    runner = GatedRunner()
    text = ""

    def has_shown(pattern: str) -> bool:
        nonlocal text
        text += seen(shown)
        return re.search(pattern, text) is not None

    async with run_engine_client(lambda: runner) as client:
        showing = asyncio.create_task(live_line.show_load(client, Settings(), out=out))
        stream = begin(client)
        runner.allow(2)
        await until(lambda: has_shown(LINE.pattern))
        runner.allow(100)
        await collect(stream)
        stream.close()
        await until(lambda: has_shown(r"\r\x1b\[K$"))
        assert "\n" not in text
        showing.cancel()
        await asyncio.wait([showing])
        # What is cancelled right after it has erased the line may erase it once more.
        assert seen(shown).replace("\r\x1b[K", "") == ""


async def test_it_is_not_where_there_is_no_terminal(run_engine_client: EngineFactory) -> None:
    async with run_engine_client(GatedRunner) as client:
        out = io.StringIO()
        await live_line.show_load(client, Settings(), out=out)
        assert out.getvalue() == ""


@pytest.mark.parametrize("settings", [{"log_format": "json"}, {"log_level": "warning"}])
async def test_it_is_not_where_it_is_not_wanted(
    settings: dict[str, str],
    run_engine_client: EngineFactory,
    terminal: tuple[io.TextIOWrapper, int],
) -> None:
    async with run_engine_client(GatedRunner) as client:
        chosen = Settings(**settings)  # type: ignore[arg-type]
        await live_line.show_load(client, chosen, out=terminal[0])


def test_lines_of_the_log_take_its_place(
    terminal: tuple[io.TextIOWrapper, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, shown = terminal
    root, level = logging.getLogger(), logging.getLogger("millstream").level
    before = root.handlers[:]
    try:
        with (tmp_path / "log").open("w", encoding="utf-8") as file:
            for stream in (out, file):
                monkeypatch.setattr("sys.stderr", stream)
                configure_logging("info")
                logging.getLogger("millstream").info("hello")
                root.handlers[0].close()  # which writes what waits
    finally:
        root.handlers[:] = before
        logging.getLogger("millstream").setLevel(level)
    assert seen(shown).startswith("\r\x1b[K20")
    assert "\x1b" not in (tmp_path / "log").read_text(encoding="utf-8")
