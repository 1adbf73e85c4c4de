"""Chromium, profiles that know nothing yet, and servers that the pages are opened from.

`demo_server` is a real server with the demo model. `scripted` has everything of a server but the
model, which says what the test's `script` says: see `tests.page.scripted_server`. Neither is left
with anything open. A page on which a script failed fails its test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Playwright,
    expect,
    sync_playwright,
)

from tests.e2e.harness import RunningServer, wait_until
from tests.e2e.kept import KeptServers
from tests.page.script import SCRIPT, Script

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_WAIT_MILLISECONDS = 30_000


def chromium(playwright: Playwright) -> Browser | None:
    """The Chromium that the system has, without a window; None without one."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        return None
    # The sandbox of Chromium does not start as root.
    flags = [] if os.getuid() else ["--no-sandbox"]
    return playwright.chromium.launch(executable_path=program, args=flags)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Not longer than this folder: beside it no event loop can run."""
    with sync_playwright() as playwright:
        running = chromium(playwright)
        if running is None:
            pytest.skip("no Chromium here: pages are tested in the one that the system has")
        expect.set_options(timeout=_WAIT_MILLISECONDS)
        with running:
            yield running


@pytest.fixture
def new_profile(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Makes profiles without cookies or anything else; options are those of `new_context`."""
    profiles: list[BrowserContext] = []
    failures: list[str] = []

    def make(**options: object) -> BrowserContext:
        profile = browser.new_context(**options)  # type: ignore[arg-type]
        profile.set_default_timeout(_WAIT_MILLISECONDS)
        profile.on("weberror", lambda error: failures.append(str(error.error)))
        profiles.append(profile)
        return profile

    yield make
    for profile in profiles:
        profile.close()
    assert not failures, failures


@pytest.fixture
def profile(new_profile: Callable[..., BrowserContext]) -> BrowserContext:
    """A profile whose browser knows nothing yet; its pages are tabs of one visitor."""
    return new_profile()


@pytest.fixture
def page(profile: BrowserContext) -> Page:
    """An empty tab."""
    return profile.new_page()


@pytest.fixture(scope="package")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real server with the demo model, which keeps chats until it ends."""
    log = tmp_path_factory.mktemp("demo") / "server.log"
    flags = ["--max-concurrent-requests", "8", "--kv-cache-memory", "128MiB"]
    server = RunningServer(flags, log, is_warm=True)
    yield server
    server.stop()


@pytest.fixture(scope="package")
def markdown_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`markdown_harness.ts` as one script for a browser."""
    folder = Path(__file__).parents[2] / "clients" / "page"
    esbuild = folder / "node_modules" / ".bin" / "esbuild"
    if not esbuild.exists() or shutil.which("node") is None:
        pytest.skip("the pages' packages are not installed: make page")
    program = tmp_path_factory.mktemp("markdown") / "harness.js"
    source = Path(__file__).with_name("markdown_harness.ts")
    command = [esbuild, source, "--bundle", "--format=iife", f"--outfile={program}"]
    subprocess.run([*command, "--log-level=error"], check=True, cwd=folder)
    return program


class ScriptedServers(KeptServers):
    """Servers whose model reads a script; one at a time, all with the same."""

    def __init__(self, folder: Path) -> None:
        self.script = Script(folder / "script.json")
        super().__init__(
            folder / "server.log",
            program="tests.page.scripted_server",
            variables={SCRIPT: str(self.script.path)},
        )
        self._flags: Sequence[str] | None = None

    def serve(self, *flags: str) -> str:
        """Its URL, of a server that has these flags: the one that runs, or a new one."""
        if self._pid is None or flags != self._flags:
            self.clear()
            self._flags = None
            store = () if "--store" in flags else ("--store", "memory")
            self.start([*store, *flags])
            self._flags = flags
        return self.url

    def wait_idle(self) -> None:
        """Lets all answers go on, and waits until none is being made."""
        self.script.clear()
        wait_until(lambda: not self._num_open(), "no open requests")

    def _num_open(self) -> int:
        body = httpx.get(f"{self.url}/health").json()
        return int(body["open_requests"])


@pytest.fixture(scope="package")
def scripted_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServers]:
    """For tests whose servers have flags of their own, or are killed: `serve()`."""
    with ScriptedServers(tmp_path_factory.mktemp("scripted")) as servers:
        yield servers


@pytest.fixture
def scripted(scripted_servers: ScriptedServers) -> Iterator[ScriptedServers]:
    """A scripted server as it is by default; its `url`, and its `script`, empty."""
    scripted_servers.script.clear()
    scripted_servers.serve()
    yield scripted_servers
    scripted_servers.wait_idle()


@pytest.fixture
def script(scripted: ScriptedServers) -> Script:
    return scripted.script
