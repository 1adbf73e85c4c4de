"""Two real servers, the list of expected failures, and the table at the end.

`demo_server`, `demo_url`: `millstream serve` as it is, with the demo model. `scripted_url`: the
same server whose model knows its lines (scripted_server.py), for a clever model; it wants a key,
and its chat template shortens nothing.
`long_url`: the same with room for the prompts of coding agents. After every test all must be
idle: a client that leaves a request behind has found a leak.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.compat.long_demo import make_long_demo, write_whole_template
from tests.compat.suites import SUITES, table
from tests.e2e.harness import RunningServer

HERE = Path(__file__).parent
EXPECTED = HERE / "expected.toml"
START, END = "<!-- results: written by make test-compat -->", "<!-- end of results -->"
_FLAGS = ["--max-concurrent-requests", "8", "--kv-cache-memory", "128MiB"]
# For the page of clients/html, which some other server serves.
_FLAGS += ["--allowed-origins", "*"]

# Libraries that report home are told not to; nothing here leaves the machine.
os.environ |= {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LANGSMITH_TRACING": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "OPENAI_API_KEY": "sesame",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--server-python", help="the Python that has millstream", required=False)
    parser.addoption("--write-table", metavar="PAGE", help="writes the results into this page")


@pytest.fixture(scope="session")
def server_python(pytestconfig: pytest.Config) -> str:
    default = HERE.parents[1] / ".venv" / "bin" / "python"
    return str(pytestconfig.getoption("server_python") or default)


@pytest.fixture(scope="session")
def fleet() -> list[RunningServer]:
    return []


@pytest.fixture(scope="session")
def demo_server(
    fleet: list[RunningServer], server_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("demo") / "server.log"
    command = [server_python, "-m", "millstream"]
    yield from _serve(fleet, RunningServer(_FLAGS, log, command=command))


@pytest.fixture(scope="session")
def demo_url(demo_server: RunningServer) -> str:
    return demo_server.url


@pytest.fixture(scope="session")
def scripted_server(
    fleet: list[RunningServer], server_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("scripted")
    write_whole_template(folder / "template.jinja")
    flags = [*_FLAGS, "--chat-template", str(folder / "template.jinja")]
    command = [server_python, str(HERE / "scripted_server.py")]
    variables = {"MILLSTREAM_API_KEY": os.environ["OPENAI_API_KEY"]}
    server = RunningServer(flags, folder / "server.log", command=command, variables=variables)
    yield from _serve(fleet, server)


@pytest.fixture(scope="session")
def scripted_url(scripted_server: RunningServer) -> str:
    return scripted_server.url


@pytest.fixture(scope="session")
def long_url(
    fleet: list[RunningServer], server_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("long")
    model = make_long_demo(folder / "model")
    flags = ["--model-id", str(model), "--kv-cache-memory", "512MiB"]
    command = [server_python, str(HERE / "scripted_server.py")]
    variables = {"MILLSTREAM_API_KEY": os.environ["OPENAI_API_KEY"]}
    server = RunningServer(flags, folder / "server.log", command=command, variables=variables)
    for running in _serve(fleet, server):
        yield running.url


def _serve(fleet: list[RunningServer], server: RunningServer) -> Iterator[RunningServer]:
    fleet.append(server)
    yield server
    fleet.remove(server)
    server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window. Not longer than a module: beside it no event loop can run."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium here")
    with sync_playwright() as playwright:
        # The sandbox of Chromium does not start as root.
        flags = [] if os.getuid() else ["--no-sandbox"]
        expect.set_options(timeout=90_000)
        with playwright.chromium.launch(executable_path=program, args=flags) as running:
            yield running


@pytest.fixture(autouse=True)
def no_leak(fleet: list[RunningServer]) -> Iterator[None]:
    yield
    for server in fleet:
        server.wait_idle()


@pytest.fixture
def vcr() -> None:
    """Nothing is recorded: LangChain's suite asks for this and then skips."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what expected.toml lists. An entry that fits no test must not get into the table."""
    for entry in tomllib.loads(EXPECTED.read_text(encoding="utf-8"))["failure"]:
        found = [item for item in items if entry["test"] in item.nodeid]
        for item in found:
            item.add_marker(pytest.mark.xfail(reason=entry["reason"], strict=True))
        if not found and config.getoption("write_table"):
            raise pytest.UsageError(f"{EXPECTED.name}: there is no test {entry['test']}")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    results: dict[str, Counter[str]] = {suite.module: Counter() for suite in SUITES}
    for outcome, reports in terminalreporter.stats.items():
        name = {"error": "failed", "xpassed": "failed"}.get(outcome, outcome)
        for report in reports:
            if name in ("passed", "failed", "xfailed", "skipped"):
                suite = _suite_of(report.nodeid)
                if suite in results and getattr(report, "when", "call") != "teardown":
                    results[suite][name] += 1
    results = {module: counts for module, counts in results.items() if counts}
    terminalreporter.section("suites")
    terminalreporter.write_line(table(results))
    if page := config.getoption("write_table"):
        path = Path(page)
        text = path.read_text(encoding="utf-8")
        before, _, rest = text.partition(START)
        after = rest.partition(END)[2]
        path.write_text(f"{before}{START}\n{table(results)}\n{END}{after}", encoding="utf-8")


def _suite_of(nodeid: str) -> str:
    """`test_js.py::test_case[openai.test: streams]` is of the suite `openai.test`."""
    file, _, case = nodeid.partition("::")
    if file.endswith(("test_js.py", "test_frameworks.py")):
        return case.partition("[")[2].partition(":")[0]
    return Path(file).stem
