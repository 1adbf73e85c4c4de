"""An answer goes on without a lost or doubled letter, whatever happens to page and network."""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, Page, Request, Route, expect

from tests.page.conftest import ScriptedServers
from tests.page.cutting import network
from tests.page.script import HOLD, Script
from tests.page.talk import Talk

_LETTERS = "abcdefghijklmnopqrstuvwxyz " * 2
_HIDE = """isHidden => {
    Object.defineProperty(document, "hidden", {configurable: true, get: () => isHidden});
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def open_streams(page: Page) -> set[Request]:
    """The streams of answers that the page holds from now on; kept up to date."""
    open_now: set[Request] = set()

    def begin(request: Request) -> None:
        if "stream=true" in request.url or request.url.endswith("/messages"):
            open_now.add(request)

    page.on("request", begin)
    page.on("requestfailed", lambda request: open_now.discard(request))
    page.on("requestfinished", lambda request: open_now.discard(request))
    return open_now


def test_an_answer_goes_on_after_each_reload(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    parts = ["<think>\nHm", "m.\n</think>\nOne", " two", f" three. {_LETTERS}"]
    script.say("Count.", HOLD.join(["", *parts]))
    talk = Talk.open(profile, scripted.url)
    talk.send("Count.")
    expect(talk.answers).to_have_count(1)
    for part in ("", "Thinking", "One", "One two"):
        expect(talk.text).to_contain_text(part)
        talk.page.reload()
        expect(talk.text).to_contain_text(part)
        expect(talk.answer).to_have_attribute("data-status", "in_progress")
        script.go_on("Count.")
    expect(talk.answer).to_have_attribute("data-status", "completed")
    expect(talk.text).to_contain_text(f"One two three. {_LETTERS}".strip())
    before = talk.text.inner_text()
    talk.page.reload()
    expect(talk.answer).to_have_attribute("data-status", "completed")
    assert talk.text.inner_text() == before


def test_what_never_arrived_is_in_the_box_after_a_reload(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Hello", "Hi")
    script.say("Again", "Hi again")
    talk = Talk.open(profile, scripted.url)
    talk.say("Hello", "Hi")
    talk.page.route("**/messages", lambda route: None)
    with talk.page.expect_request("**/messages"):
        talk.send("Again")
    talk.page.reload()
    # Earlier, what is held back would be let go.
    talk.page.unroute("**/messages")
    expect(talk.answers).to_have_count(1)
    expect(talk.box).to_have_value("Again")
    talk.box.press("Enter")
    talk.expect_answer("Hi again")
    expect(talk.box).to_have_value("")


def test_what_arrived_unseen_is_not_in_the_box_after_a_reload(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Hello", "Hi")
    script.say("Again", "Hi again")
    talk = Talk.open(profile, scripted.url)
    talk.say("Hello", "Hi")
    arrived: list[int] = []

    def swallow(route: Route) -> None:
        arrived.append(route.fetch().status)

    talk.page.route("**/messages", swallow)
    with talk.page.expect_request("**/messages"):
        talk.send("Again")
    while not arrived:
        talk.page.wait_for_timeout(10)
    talk.page.reload()
    talk.expect_answer("Hi again")
    expect(talk.box).to_have_value("")
    expect(talk.questions).to_have_count(2)
    expect(talk.page.locator(".versions")).to_have_count(0)


def test_what_may_have_arrived_is_looked_for_before_it_is_sent_again(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Hello", "Hi")
    script.say("Again", "Hi again")
    talk = Talk.open(profile, scripted.url)
    talk.say("Hello", "Hi")

    def lose(route: Route) -> None:
        route.fetch()
        route.abort("connectionreset")

    talk.page.route("**/messages", lose, times=1)
    talk.send("Again")
    talk.expect_answer("Hi again")
    expect(talk.questions).to_have_count(2)
    expect(talk.box).to_have_value("")
    expect(talk.page.locator(".versions")).to_have_count(0)


def test_a_stream_that_is_cut_within_an_event_goes_on(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    # Letters may share an event, but not across what holds them up.
    told = f"one t{HOLD}wo three \N{FOX FACE} four five {_LETTERS}".strip()
    text = told.replace(HOLD, "")
    script.say("Count.", told, by_letter=True, seconds=0.001)
    with network(scripted.url) as between:
        talk = Talk.open(profile, between.url)
        between.cut_within(b'"delta":"w')
        talk.send("Count.")
        expect(talk.box).to_have_value("")
        expect(talk.text).to_have_text("one t")
        script.go_on("Count.")  # this answer and all that follow
        talk.expect_answer(text)
        for mark in (b"response.output_text.done", b"response.completed"):
            between.cut_within(mark)
            talk.send("Count.")
            expect(talk.box).to_have_value("")
            talk.expect_answer(text)
        assert between.num_cut == 3
        between.cut()
        talk.send("Count.")
        talk.expect_answer(text)


def test_a_hidden_page_holds_no_stream_and_goes_on_when_it_is_seen(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Count.", f"One{HOLD} two{HOLD} three")
    talk = Talk.open(profile, scripted.url)
    streams = open_streams(talk.page)
    talk.send("Count.")
    expect(talk.text).to_have_text("One")
    assert len(streams) == 1
    with talk.page.expect_event("requestfailed"):
        talk.page.evaluate(_HIDE, True)
    assert not streams
    script.go_on("Count.")
    with talk.page.expect_request(re.compile("starting_after")):
        talk.page.evaluate(_HIDE, False)
    expect(talk.text).to_have_text("One two")
    script.go_on("Count.")
    talk.expect_answer("One two three")


def test_two_tabs_show_the_same_answer_as_it_comes(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Hello", "Hi")
    script.say("Count.", f"One{HOLD} two")
    first = Talk.open(profile, scripted.url)
    first.say("Hello", "Hi")
    second = Talk.open(profile, first.page.url)
    expect(second.text).to_have_text("Hi")
    first.send("Count.")
    for talk in (first, second):
        expect(talk.text).to_have_text("One")
    script.go_on("Count.")
    for talk in (first, second):
        talk.expect_answer("One two")
        expect(talk.questions).to_have_text(["Hello", "Count."])
    second.button("Answer again").last.click()
    expect(first.answer).to_contain_text("Version 2 / of 2")
    second.list.get_by_role("button").click()
    second.button("Rename").click()
    second.page.get_by_label("New title").fill("Numbers")
    second.button("Save").click()
    expect(first.page).to_have_title("Numbers – Millstream")


def test_tabs_that_send_at_once_lose_nothing(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    for question in ("Hello", "Left", "Right"):
        script.say(question, f"To {question}{HOLD}.")
    script.go_on("Hello")
    first = Talk.open(profile, scripted.url)
    first.say("Hello", "To Hello.")
    second = Talk.open(profile, first.page.url)
    expect(second.answers).to_have_count(1)
    for talk, question in ((first, "Left"), (second, "Right")):
        talk.box.fill(question)
    second.page.evaluate("document.querySelector('.composer').requestSubmit()")
    first.page.evaluate("document.querySelector('.composer').requestSubmit()")
    for talk in (first, second):
        expect(talk.questions.last).to_contain_text("Version 2 / of 2")
        expect(talk.box).to_have_value("")
    for question in ("Left", "Right"):
        script.go_on(question)
    expect(first.answer).to_have_attribute("data-status", "completed")
    seen = {first.questions.last.locator(".question").text_content()}
    first.button("Previous version of this question").click()
    expect(first.answer).to_have_attribute("data-status", "completed")
    expect(first.questions.last).to_contain_text("Version 1 / of 2")
    seen.add(first.questions.last.locator(".question").text_content())
    assert seen == {"Left", "Right"}
