"""Chats in a browser: two tabs are one visitor, another profile is another, and scripts of a page
never see the cookie."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Browser, Page

_ASK = """async ([method, path, body]) => {
    const headers = {"Content-Type": "application/json"};
    const answer = await fetch("/v1" + path, {method, headers, body: body && JSON.stringify(body)});
    const text = await answer.text();
    return answer.headers.get("content-type").startsWith("application/json")
        ? JSON.parse(text) : text;
}"""
# Reads the beginning of a stream and leaves it, as a page does that is reloaded.
_LEAVE = """async ([path, body]) => {
    const headers = {"Content-Type": "application/json"};
    const answer = await fetch("/v1" + path,
        {method: "POST", headers, body: JSON.stringify(body)});
    const reader = answer.body.getReader();
    await reader.read();
    location.reload();
}"""


def ask(page: Page, method: str, path: str, body: Any = None) -> Any:
    return page.evaluate(_ASK, [method, path, body])


def texts(chat: Any) -> list[str]:
    """What the visitor has said in it."""
    asked = [one for one in chat["messages"] if one["role"] == "user"]
    return [one["items"][0]["content"][0]["text"] for one in asked]


def test_two_tabs_are_one_visitor(browser: Browser, demo_url: str) -> None:
    with browser.new_context() as profile, browser.new_context() as other:
        first, second, stranger = profile.new_page(), profile.new_page(), other.new_page()
        for page in (first, second, stranger):
            page.goto(f"{demo_url}/docs")
        # A page begins with its list, whose answer brings the cookie.
        assert ask(first, "GET", "/chats")["data"] == []
        stream = ask(
            first, "POST", "/chats/current/messages", {"content": "Count to 3.", "stream": True}
        )
        assert "event: response.completed" in stream
        ask(second, "POST", "/chats/current/messages", {"content": "Again, please."})
        chat = ask(first, "GET", "/chats/current")
        assert texts(chat) == ["Count to 3.", "Again, please."]
        assert ask(second, "GET", "/chats")["data"][0]["id"] == chat["id"]
        assert ask(stranger, "GET", "/chats")["data"] == []
        assert ask(stranger, "GET", f"/chats/{chat['id']}")["error"]["code"] == "chat_not_found"
        assert first.evaluate("document.cookie") == ""


def test_a_reloaded_tab_finds_its_answer(browser: Browser, demo_url: str) -> None:
    with browser.new_context() as profile:
        page = profile.new_page()
        page.goto(f"{demo_url}/docs")
        ask(page, "GET", "/chats")
        with page.expect_navigation():
            path = "/chats/current/messages"
            page.evaluate(_LEAVE, [path, {"content": "Count to 20.", "stream": True}])
        chat = ask(page, "GET", "/chats/current")
        where = f"/responses/{chat['leaf']}?stream=true"
        assert "event: response.completed" in ask(page, "GET", where)
        assert ask(page, "GET", "/chats/current")["messages"][-1]["status"] == "completed"
