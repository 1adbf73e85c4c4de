"""clients/html/index.html in a browser: it streams, stops, and shows what goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.e2e.harness import RunningServer, wait_until

FOLDER = Path(__file__).parents[2] / "clients" / "html"
ROUTE = "**/v1/chat/completions"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of the page, which is not the server's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=FOLDER)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def page(browser: Browser, site: str, demo_url: str) -> Iterator[Page]:
    with browser.new_page() as page:
        page.goto(f"{site}?server={demo_url}")
        yield page


def ask(page: Page, question: str) -> None:
    page.fill("#question", question)
    page.press("#question", "Enter")


def wait_ready(page: Page) -> None:
    """Waits until the page lets ask again."""
    expect(page.locator("#send")).to_be_enabled()
    expect(page.locator("#stop")).to_be_disabled()


def answer_with(page: Page, stream: str) -> None:
    """Lets the page get this stream from its server."""

    def fulfill(route: Route) -> None:
        headers = {"access-control-allow-origin": "*"}
        route.fulfill(body=stream, headers=headers, content_type="text/event-stream")

    page.route(ROUTE, fulfill)


def delta(text: str) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})


def test_conversation(page: Page) -> None:
    ask(page, "Count to 5")
    expect(page.locator(".assistant")).to_have_text("1 2 3 4 5")
    wait_ready(page)
    ask(page, "My name is Anna.")
    expect(page.locator(".assistant").nth(1)).not_to_be_empty()
    wait_ready(page)
    ask(page, "What is my name?")
    expect(page.locator(".assistant").nth(2)).to_contain_text("Anna")
    wait_ready(page)
    expect(page.locator(".user")).to_have_count(3)
    expect(page.locator(".error")).to_have_count(0)


def test_stopping(page: Page, demo_server: RunningServer) -> None:
    before = demo_server.log().count("error=client_left")
    ask(page, "Count to 90")
    expect(page.locator(".assistant")).to_contain_text("3")
    page.click("#stop")
    wait_ready(page)
    wait_until(lambda: demo_server.log().count("error=client_left") > before, "it has stopped")
    assert "90" not in page.inner_text(".assistant")
    expect(page.locator(".error")).to_have_count(0)
    ask(page, "Count to 5")
    expect(page.locator(".assistant").nth(1)).to_contain_text("5")


def test_a_busy_server(page: Page, demo_server: RunningServer) -> None:
    body = {"messages": [{"role": "user", "content": "Count to 5"}], "stream": True}
    with ExitStack() as places, demo_server.paused_engine():
        limits = httpx.Limits(max_connections=None)
        client = places.enter_context(httpx.Client(base_url=demo_server.url, limits=limits))
        status = 200
        while status == 200:
            stream = client.stream("POST", "/v1/chat/completions", json=body)
            status = places.enter_context(stream).status_code
        ask(page, "Count to 5")
        expect(page.locator(".error")).to_contain_text("429: ")
        expect(page.locator(".error")).to_contain_text("try again in ")
        wait_ready(page)


def test_a_refusal(page: Page) -> None:
    ask(page, "word " * 5000)
    expect(page.locator(".error")).to_contain_text("400: ")


def test_nobody_answers(page: Page) -> None:
    page.route(ROUTE, lambda route: route.abort())
    ask(page, "Count to 5")
    expect(page.locator(".error")).to_have_text("Failed to fetch")
    wait_ready(page)


def test_any_framing(page: Page) -> None:
    events = (
        ": waiting",
        f"id: 1\r\ndata:{delta('Grüße ')}",
        f"data: {delta('🙂')}",
        "data: [DONE]",
    )
    answer_with(page, "".join(f"{event}\r\n\r\n" for event in events))
    ask(page, "Hello")
    expect(page.locator(".assistant")).to_have_text("Grüße 🙂")
    wait_ready(page)
    expect(page.locator(".error")).to_have_count(0)


@pytest.mark.parametrize(
    ("last", "shown"),
    [
        ('data: {"error": {"message": "out of memory"}}\n\n', "out of memory"),
        ("", "connection was lost"),
    ],
)
def test_a_broken_stream(page: Page, last: str, shown: str) -> None:
    answer_with(page, f"data: {delta('Hal')}\n\n{last}")
    ask(page, "Hello")
    expect(page.locator(".error")).to_contain_text(shown)
    expect(page.locator(".assistant")).to_have_text("Hal")
    wait_ready(page)
