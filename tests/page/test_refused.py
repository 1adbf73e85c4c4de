"""A server that has no time, wants a key, keeps nothing or lost a chat: the page says so, and what
was typed stays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, Route, expect

from tests.page.conftest import ScriptedServers
from tests.page.script import HOLD, Script
from tests.page.talk import Talk

NewProfile = Callable[..., BrowserContext]


@pytest.fixture
def one_place(scripted_servers: ScriptedServers) -> Iterator[ScriptedServers]:
    """A server that makes one answer at a time, and lets one wait."""
    scripted_servers.script.clear()
    scripted_servers.serve("--max-concurrent-requests", "1", "--max-queue-size", "1")
    yield scripted_servers
    scripted_servers.wait_idle()


def held(servers: ScriptedServers, profile: BrowserContext, question: str) -> Talk:
    """A tab in which this question is being answered, and waits."""
    servers.script.say(question, f"One{HOLD} two")
    talk = Talk.open(profile, servers.url)
    talk.send(question)
    expect(talk.answers).to_have_count(1)
    return talk


def test_who_waits_sees_the_place_in_the_queue(
    new_profile: NewProfile, one_place: ScriptedServers
) -> None:
    first = held(one_place, new_profile(), "First")
    expect(first.text).to_have_text("One")
    second = held(one_place, new_profile(), "Second")
    expect(second.answer).to_contain_text("Waiting in the queue: next")
    second.page.reload()
    expect(second.answer).to_contain_text("Waiting in the queue: next")
    one_place.script.go_on("First")
    expect(second.text).to_have_text("One")
    one_place.script.go_on("Second")
    second.expect_answer("One two")
    first.expect_answer("One two")


def test_who_waits_can_stop(new_profile: NewProfile, one_place: ScriptedServers) -> None:
    first = held(one_place, new_profile(), "First")
    second = held(one_place, new_profile(), "Second")
    expect(second.answer).to_contain_text("Waiting in the queue: next")
    second.button("Stop").click()
    expect(second.answer).to_have_attribute("data-status", "cancelled")
    one_place.script.go_on("First")
    first.expect_answer("One two")


def test_a_busy_server_is_asked_again_until_one_stops_that(
    new_profile: NewProfile, one_place: ScriptedServers
) -> None:
    one_place.script.say("Third", "Three")
    first = held(one_place, new_profile(), "First")
    second = held(one_place, new_profile(), "Second")
    third = Talk.open(new_profile(), one_place.url)
    third.send("Third")
    expect(third.page.get_by_text("Not sent yet.")).to_be_visible()
    expect(
        third.page.get_by_text(re.compile(r"It is tried again (in \d+ s|now)\."))
    ).to_be_visible()
    expect(third.box).to_have_value("Third")
    third.button("Stop trying").click()
    expect(third.page.get_by_text("Not sent yet.")).to_be_hidden()
    expect(third.box).to_have_value("Third")
    third.page.reload()
    expect(third.box).to_have_value("Third")
    third.box.press("Enter")
    expect(third.page.get_by_text("Not sent yet.")).to_be_visible()
    for question in ("First", "Second"):
        one_place.script.go_on(question)
    for talk in (first, second):
        talk.expect_answer("One two")
    third.button("Try now").click()
    third.expect_answer("Three")
    expect(third.box).to_have_value("")
    expect(third.questions).to_have_count(1)


def test_a_busy_server_is_asked_again_when_it_has_said(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Hello", "Hi")
    talk = Talk.open(profile, scripted.url)
    body = json.dumps({"error": {"message": "all places are taken", "code": "overloaded"}})

    def refuse(route: Route) -> None:
        headers = {"Retry-After": "1", "Content-Type": "application/json"}
        route.fulfill(status=429, headers=headers, body=body)

    talk.page.route("**/messages", refuse, times=2)
    talk.send("Hello")
    expect(talk.page.get_by_text("Not sent yet. All places are taken.")).to_be_visible()
    talk.box.press_sequentially(" And")
    talk.expect_answer("Hi")
    expect(talk.box).to_have_value("And")


def test_a_key_is_asked_for_once(
    new_profile: NewProfile, scripted_servers: ScriptedServers
) -> None:
    scripted_servers.script.clear()
    scripted_servers.script.say("Hello", "Hi")
    url = scripted_servers.serve("--api-key", "sesame")
    profile = new_profile()
    talk = Talk.open(profile, url)
    dialog = talk.page.get_by_role("dialog", name="This server wants a key")
    dialog.get_by_label("Key").fill("ключ")
    expect(dialog.get_by_role("alert")).to_contain_text("only letters, digits and signs of ASCII")
    expect(talk.button("Use this key")).to_be_disabled()
    dialog.get_by_label("Key").fill("wrong")
    dialog.get_by_label("Key").press("Enter")
    expect(dialog).to_contain_text("The server does not take the key")
    dialog.get_by_label("Key").fill("sesame")
    dialog.get_by_label("Key").press("Enter")
    expect(dialog).to_be_hidden()
    talk.say("Hello", "Hi")
    talk.page.reload()
    expect(talk.text).to_have_text("Hi")
    expect(dialog).to_be_hidden()
    other = Talk.open(profile, talk.page.url)
    expect(other.text).to_have_text("Hi")
    expect(other.page.get_by_role("dialog")).to_be_hidden()
    kept = talk.page.evaluate("[JSON.stringify(localStorage), document.cookie, location.href]")
    assert "sesame" not in "".join(kept), "a key is kept for the session alone"


def test_a_key_that_is_asked_for_while_sending_keeps_what_was_typed(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Hello", "Hi")
    talk = Talk.open(profile, scripted.url)
    body = {"error": {"message": "no", "type": "", "param": None, "code": "invalid_api_key"}}

    def refuse(route: Route) -> None:
        route.fulfill(status=401, body=json.dumps(body), content_type="application/json")

    talk.page.route("**/messages", refuse, times=1)
    talk.send("Hello")
    dialog = talk.page.get_by_role("dialog", name="This server wants a key")
    expect(dialog).to_be_visible()
    expect(talk.box).to_have_value("Hello")
    dialog.get_by_label("Key").fill("sesame")
    dialog.get_by_label("Key").press("Enter")
    talk.expect_answer("Hi")


def test_a_server_that_keeps_nothing_says_what_to_change(
    profile: BrowserContext, scripted_servers: ScriptedServers
) -> None:
    talk = Talk.open(profile, scripted_servers.serve("--store", "off"))
    expect(talk.page.get_by_text("Start it without that flag to chat here.")).to_be_visible()
    expect(talk.box).to_be_disabled()
    scripted_servers.clear()


def test_who_answers_in_the_servers_place_is_told(
    profile: BrowserContext, scripted: ScriptedServers
) -> None:
    def log_in(route: Route) -> None:
        route.fulfill(status=200, body="<h1>Log in</h1>", content_type="text/html")

    profile.route("**/v1/**", log_in)
    talk = Talk.open(profile, scripted.url)
    told = "Something between here and the server answers in its place"
    expect(talk.page.get_by_role("alert")).to_contain_text(told)
    talk.send("Hello")
    expect(talk.page.get_by_text(f"Not sent. {told}")).to_be_visible()
    expect(talk.box).to_have_value("Hello")


def test_what_the_server_refuses_stays_in_the_box(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Hello", "Hi")
    talk = Talk.open(profile, scripted.url)
    body = {"error": {"message": "the disk is full", "param": None, "code": "store_unavailable"}}

    def refuse(route: Route) -> None:
        route.fulfill(status=503, body=json.dumps(body), content_type="application/json")

    talk.page.route("**/messages", refuse, times=1)
    talk.send("Hello")
    expect(talk.page.get_by_role("alert")).to_have_text("Not sent. The disk is full.")
    expect(talk.box).to_have_value("Hello")
    talk.box.press("Enter")
    talk.expect_answer("Hi")
    expect(talk.page.get_by_role("alert")).to_be_hidden()


def test_a_chat_that_another_tab_deletes_keeps_what_was_typed(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Hello", "Hi")
    first = Talk.open(profile, scripted.url)
    first.say("Hello", "Hi")
    second = Talk.open(profile, first.page.url)
    expect(second.text).to_have_text("Hi")
    first.box.fill("And then?")
    second.list.get_by_role("button").click()
    second.button("Delete").click()
    second.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(second.list).to_have_count(0)
    expect(first.page.get_by_text("This chat was deleted in another tab.")).to_be_visible()
    expect(first.box).to_have_value("And then?")
    expect(first.button("Send")).to_be_disabled()
    expect(first.list).to_have_count(0)
