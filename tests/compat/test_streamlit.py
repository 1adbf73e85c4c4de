"""The pages of clients/streamlit in a browser: a document's program, and the one with a button."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver
from playwright.sync_api import Browser, Page, expect

from tests.e2e.harness import RunningServer, wait_until
from tests.quotations import quoted_programs

FOLDER = Path(__file__).parents[2] / "clients" / "streamlit"
SAID = "[data-testid=stChatMessage]"


@contextmanager
def streamlit(program: str, server: RunningServer, folder: Path) -> Iterator[str]:
    """Runs a program of the folder. Yields its address."""
    log_file = folder / "streamlit.log"
    variables = {"MILLSTREAM_URL": server.url, "THREADS_FILE": str(folder / "threads.sqlite3")}
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(FOLDER / program),
        "--server.port",
        "0",
    ]
    command += ["--server.headless", "true", "--browser.gatherUsageStats", "false"]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        found: list[str] = []

        def is_ready() -> bool:
            found[:] = re.findall(r"http://localhost:\d+", log_file.read_text("utf-8"))
            return bool(found)

        wait_until(is_ready, "Streamlit is ready", seconds=90)
        yield found[0]
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streamlit")


@pytest.fixture(scope="module")
def document_url(scripted_server: RunningServer, folder: Path) -> Iterator[str]:
    with streamlit("chat.py", scripted_server, folder) as url:
        yield url


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_page() as page:
        page.set_default_timeout(90_000)
        yield page


def ask(page: Page, question: str) -> None:
    page.get_by_test_id("stChatInputTextArea").fill(question)
    page.keyboard.press("Enter")


def remembered(folder: Path, thread: str) -> list[tuple[str, str]]:
    """The messages of a thread: who said what."""
    with closing(sqlite3.connect(folder / "threads.sqlite3")) as connection:
        found = SqliteSaver(connection).get_tuple({"configurable": {"thread_id": thread}})
    assert found is not None
    messages = found.checkpoint["channel_values"]["messages"]
    return [(message.type, str(message.content)) for message in messages]


def stopped(server: RunningServer) -> int:
    """How many answers were cancelled so far."""
    return server.log().count("error=cancelled")


def test_the_program_is_the_document_s() -> None:
    program = (FOLDER / "chat.py").read_text(encoding="utf-8")
    assert [program] == quoted_programs("streaming_in_streamlit", "python")


def test_a_tool_between_the_tokens(document_url: str, page: Page, folder: Path) -> None:
    page.goto(document_url)
    ask(page, "What is 12 times 34?")
    answer = page.locator(SAID).nth(1)
    shown = re.compile(r"multiply\(.*12.*34.*\).*→ 408.*The result is 408", re.DOTALL)
    expect(answer).to_contain_text(shown)
    # The thread outlives the page.
    page.reload()
    ask(page, "What is 12 times 34?")
    expect(answer).to_contain_text(shown)
    wait_until(lambda: len(remembered(folder, "thread-1")) == 8, "both turns are kept")
    kinds = [kind for kind, _ in remembered(folder, "thread-1")]
    assert kinds == ["human", "ai", "tool", "ai"] * 2


def test_streamlit_s_own_stop(
    document_url: str, page: Page, scripted_server: RunningServer, folder: Path
) -> None:
    before = stopped(scripted_server)
    page.goto(document_url)
    ask(page, "Recite the numbers")
    expect(page.locator(SAID).nth(1)).to_contain_text("1 2 3")
    page.get_by_test_id("stStatusWidget").get_by_role("button").click()
    wait_until(lambda: stopped(scripted_server) == before + 1, "the server has stopped")
    wait_until(lambda: remembered(folder, "thread-1")[-1][0] == "ai", "the turn is ended")
    assert "399" not in remembered(folder, "thread-1")[-1][1]


def test_a_button(page: Page, scripted_server: RunningServer, tmp_path: Path) -> None:
    """The server gives no token before the click, and some before the second one."""
    with streamlit("app.py", scripted_server, tmp_path) as url:
        page.goto(url)
        before = stopped(scripted_server)
        with scripted_server.paused_engine():
            ask(page, "Recite the numbers")
            button = page.get_by_test_id("stButton").get_by_role("button", name="Stop")
            button.click()
            expect(button).to_have_count(0)
        wait_until(lambda: stopped(scripted_server) == before + 1, "the server has stopped")
        ask(page, "Recite the numbers")
        expect(page.locator(SAID).nth(3)).to_contain_text("1 2 3")
        button.click()
        wait_until(lambda: stopped(scripted_server) == before + 2, "the server has stopped again")
        expect(button).to_have_count(0)
        assert "399" not in page.locator(SAID).nth(3).inner_text()
        ask(page, "What is 12 times 34?")
        expect(page.locator(SAID).nth(5)).to_contain_text("The result is 408")
