"""What one sees, hears and reaches while answers come: scrolling, keys, announcements."""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, expect

from tests.e2e.harness import RunningServer, wait_until
from tests.page.conftest import ScriptedServers
from tests.page.script import HOLD, Script
from tests.page.talk import Talk

_LINES = "\n\n".join(f"Line {number}." for number in range(60))
_SCROLL = "document.querySelector('.scroll')"
_BELOW = f"{_SCROLL}.scrollHeight - {_SCROLL}.clientHeight - {_SCROLL}.scrollTop"
# Notes what changes in the elements that are there now, but for the last answer.
_WATCH = """() => {
    window.changes = 0;
    const watch = new MutationObserver((changes) => (window.changes += changes.length));
    const options = {subtree: true, childList: true, characterData: true, attributes: true};
    for (const article of [...document.querySelectorAll("article")].slice(0, -1))
        watch.observe(article, options);
    window.frames = 0;
}"""


def test_scrolling_follows_while_the_reader_is_at_the_end(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Go.", f"{_LINES}{HOLD}\n\nMore.{HOLD}\n\n{_LINES}\n\nEnd.")
    talk = Talk.open(profile, scripted.url)
    talk.send("Go.")
    expect(talk.text).to_contain_text("Line 59.")
    wait_until(lambda: talk.page.evaluate(_BELOW) < 2, "the end is shown")
    expect(talk.button("Newest")).to_be_hidden()
    talk.page.mouse.move(600, 300)
    talk.page.mouse.wheel(0, -300)
    expect(talk.button("Newest")).to_be_visible()
    where = talk.page.evaluate(f"{_SCROLL}.scrollTop")
    script.go_on("Go.")
    expect(talk.text).to_contain_text("More.")
    assert talk.page.evaluate(f"{_SCROLL}.scrollTop") == where
    talk.button("Newest").click()
    expect(talk.button("Newest")).to_be_hidden()
    script.go_on("Go.")
    expect(talk.answer).to_have_attribute("data-status", "completed")
    expect(talk.text).to_contain_text("End.")
    wait_until(lambda: talk.page.evaluate(_BELOW) < 2, "the end is shown")


def test_what_is_sent_is_followed(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Long", f"{_LINES}\n\nEnd.")
    script.say("Short", "One")
    talk = Talk.open(profile, scripted.url)
    talk.send("Long")
    expect(talk.text).to_contain_text("End.")
    talk.button("Edit this question").click()
    edited = talk.page.get_by_role("textbox", name="Edited question")
    edited.fill("Short")
    talk.page.mouse.move(600, 300)
    talk.page.mouse.wheel(0, -100)
    edited.press("Enter")
    talk.expect_answer("One")
    expect(talk.button("Newest")).to_be_hidden()
    talk.send("Long")
    expect(talk.text).to_contain_text("End.")
    wait_until(lambda: talk.page.evaluate(_BELOW) < 2, "the end is shown")
    talk.page.mouse.wheel(0, -300)
    expect(talk.button("Newest")).to_be_visible()
    talk.send("Long")
    expect(talk.answers).to_have_count(3)
    expect(talk.text).to_contain_text("End.")
    wait_until(lambda: talk.page.evaluate(_BELOW) < 2, "the end is shown")


def test_what_is_read_already_is_not_touched_by_what_comes(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("First", "One")
    script.say("Second", f"Two{HOLD} {_LINES}{HOLD} end")
    talk = Talk.open(profile, scripted.url)
    talk.say("First", "One")
    talk.send("Second")
    expect(talk.text).to_have_text("Two")
    talk.page.evaluate(_WATCH)
    script.go_on("Second")
    expect(talk.text).to_contain_text("Line 59.")
    assert talk.page.evaluate("window.changes") == 0
    script.go_on("Second")
    expect(talk.answer).to_have_attribute("data-status", "completed")


def test_screen_readers_hear_the_begin_and_the_end_and_not_each_word(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Count.", f"One{HOLD} two")
    talk = Talk.open(profile, scripted.url)
    said = talk.page.locator("[aria-live=polite]")
    talk.send("Count.")
    expect(said).to_have_text("The model is answering.")
    expect(talk.answer).to_have_attribute("aria-busy", "true")
    script.go_on("Count.")
    expect(said).to_have_text("The answer is complete. One two")
    expect(talk.answer).to_have_attribute("aria-busy", "false")
    talk.button("New chat").click()
    expect(said).to_be_empty()
    assert talk.page.locator("[aria-live]:not([aria-live=polite]), [role=log]").count() == 0


def test_keys_are_shown_and_do_what_they_say(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Hello", "Hi")
    talk = Talk.open(profile, scripted.url)
    talk.say("Hello", "Hi")
    talk.box.press("Control+k")
    expect(talk.page.get_by_role("searchbox")).to_be_focused()
    talk.page.keyboard.press("Control+/")
    keys = talk.page.get_by_role("dialog", name="Keys")
    expect(keys).to_contain_text("Stop the answer")
    talk.page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    expect(talk.page.get_by_role("searchbox")).to_be_focused()
    talk.page.keyboard.press("Control+Shift+O")
    expect(talk.answers).to_have_count(0)
    expect(talk.box).to_be_focused()


def test_a_phone_has_the_list_in_a_drawer(
    new_profile: object, scripted: ScriptedServers, script: Script
) -> None:
    assert callable(new_profile)
    profile = new_profile(viewport={"width": 390, "height": 700}, has_touch=True, is_mobile=True)
    script.say("Hello", "Hi")
    talk = Talk.open(profile, scripted.url)
    talk.box.fill("Hello")
    talk.button("Send").click()
    talk.expect_answer("Hi")
    expect(talk.list).to_be_hidden()
    talk.button("List of chats").click()
    expect(talk.list).to_be_visible()
    expect(talk.button("New chat")).to_be_focused()
    talk.page.keyboard.press("Escape")
    expect(talk.list).to_be_hidden()
    expect(talk.button("List of chats")).to_be_focused()
    talk.button("List of chats").click()
    talk.list.get_by_role("link").click()
    expect(talk.list).to_be_hidden()
    for button in talk.page.get_by_role("button").all():
        box = button.bounding_box()
        assert box is None or (box["height"] >= 44 and box["width"] >= 44), button
    wide = talk.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390


def test_colours_are_the_readers_choice(profile: BrowserContext, scripted: ScriptedServers) -> None:
    talk = Talk.open(profile, scripted.url)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = talk.page.evaluate(ground)
    talk.page.emulate_media(color_scheme="dark")
    dark = talk.page.evaluate(ground)
    assert light != dark
    talk.button("Colours: system").click()
    assert talk.page.evaluate(ground) == light
    talk.page.reload()
    expect(talk.button("Colours: light")).to_be_visible()
    assert talk.page.evaluate(ground) == light
    talk.button("Colours: light").click()
    talk.page.emulate_media(color_scheme="light")
    assert talk.page.evaluate(ground) == dark


def test_an_empty_chat_says_whom_one_talks_to(
    profile: BrowserContext, demo_server: RunningServer
) -> None:
    talk = Talk.open(profile, demo_server.url)
    expect(talk.page.get_by_role("heading", name="Chat with millstream-demo")).to_be_visible()
    expect(talk.page.get_by_text("--model-id NAME")).to_be_visible()
    talk.button("What is 3 plus 4?").click()
    expect(talk.questions).to_have_text([re.compile("What is 3 plus 4")])
    expect(talk.answer).to_have_attribute("data-status", "completed")


def test_a_browser_that_keeps_nothing_and_has_old_parts_shows_the_page(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Hello", "Hi")
    profile.add_init_script("""
        const get = () => { throw new DOMException("no", "SecurityError"); };
        for (const name of ["sessionStorage", "localStorage"])
            Object.defineProperty(window, name, {get});
        delete window.BroadcastChannel;
    """)
    talk = Talk.open(profile, scripted.url)
    talk.say("Hello", "Hi")
    talk.box.fill("More")
    talk.button("New chat").click()
    expect(talk.box).to_have_value("")
    talk.list.get_by_role("link").click()
    expect(talk.box).to_have_value("More")


def test_a_page_without_script_says_so(new_profile: object, scripted: ScriptedServers) -> None:
    assert callable(new_profile)
    page = new_profile(java_script_enabled=False, reduced_motion="reduce").new_page()
    page.goto(scripted.url)
    expect(page.get_by_text("This page needs JavaScript")).to_be_visible()
    assert page.get_by_role("link", name="all routes").get_attribute("href") == "docs"
