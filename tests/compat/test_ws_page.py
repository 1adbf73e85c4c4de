"""clients/html/ws.html in a browser: many messages at once, a conversation, a stop, an end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.compat.test_html_page import FOLDER, QuietHandler
from tests.e2e.harness import RunningServer, wait_until


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of the page, which is not the server's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=FOLDER)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/ws.html"
        server.shutdown()


@pytest.fixture
def page(browser: Browser, site: str, demo_url: str) -> Iterator[Page]:
    with browser.new_page() as page:
        page.goto(f"{site}?server={demo_url.replace('http', 'ws', 1)}/ws")
        page.click("text=Connect")
        expect(page.locator("#state")).to_have_text("connected")
        yield page


def say(page: Page, *texts: str) -> None:
    for text in texts:
        page.fill("#text", text)
        page.press("#text", "Enter")


def test_messages_are_said_in_one_conversation(page: Page) -> None:
    say(page, "My name is Anna.", "Count to 5", "What is my name?")
    answers = page.locator(".answer")
    expect(answers.nth(1)).to_have_text("1 2 3 4 5")
    expect(answers.nth(2)).to_contain_text("Anna")
    expect(page.locator("li button")).to_have_count(0)
    assert page.locator(".error").all_inner_texts() == ["", "", ""]


def test_messages_by_themselves_are_answered_at_once(page: Page) -> None:
    page.uncheck("#remembers")
    page.click("text=Connect")
    expect(page.locator("#state")).to_have_text("connected")
    say(page, *["Count to 5"] * 6)
    expect(page.locator("li button")).to_have_count(0)
    expect(page.locator(".answer")).to_have_text(["1 2 3 4 5"] * 6)


def test_an_answer_is_stopped(page: Page, demo_server: RunningServer) -> None:
    say(page, "Count to 90")
    expect(page.locator(".answer")).to_contain_text("3")
    page.click("text=Stop")
    expect(page.locator("li button")).to_have_count(0)
    wait_until(lambda: demo_server.health()[1]["open_requests"] == 0, "it has stopped")
    assert "90" not in page.inner_text(".answer")
    say(page, "Count to 5")
    expect(page.locator(".answer").nth(1)).to_contain_text("5")


def test_a_refusal_is_shown_and_the_connection_stays(page: Page) -> None:
    say(page, "word " * 5000, "Count to 5")
    expect(page.locator(".error").first).to_contain_text("tokens")
    expect(page.locator(".answer").nth(1)).to_contain_text("5")
    expect(page.locator("#state")).to_have_text("connected")
