"""One tab and a server that answers: send, stop, again, other versions, go on, facts."""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, expect

from tests.e2e.harness import RunningServer
from tests.page.conftest import ScriptedServers
from tests.page.script import HOLD, Script
from tests.page.talk import Talk


def test_the_demo_model_answers_whoever_opens_the_page(
    profile: BrowserContext, demo_server: RunningServer
) -> None:
    talk = Talk.open(profile, demo_server.url)
    expect(talk.page).to_have_title("New chat – Millstream")
    expect(talk.box).to_be_focused()
    talk.send("Count to 5.")
    expect(talk.answer).to_have_attribute("data-status", "completed")
    expect(talk.text).not_to_be_empty()
    expect(talk.page).to_have_title("Count to 5. – Millstream")
    expect(talk.list).to_have_text(["Count to 5."])
    facts = talk.answer.get_by_role("list", name="Facts about this answer")
    expect(facts).to_contain_text(re.compile(r"\d+ tokens.*\d+ of \d+ prompt tokens cached"))


def test_one_types_on_while_the_model_answers(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("First", f"One{HOLD} two")
    script.say("Second", "Three")
    talk = Talk.open(profile, scripted.url)
    talk.send("First")
    expect(talk.text).to_have_text("One")
    expect(talk.box).to_have_value("")
    talk.send("Second")
    expect(
        talk.page.get_by_text("Your message is sent when this answer is complete.")
    ).to_be_visible()
    expect(talk.box).to_have_value("Second")
    script.go_on("First")
    expect(talk.questions).to_have_text(["First", "Second"])
    talk.expect_answer("Three")
    expect(talk.answers.first.locator(".answer")).to_have_text("One two")
    expect(talk.box).to_have_value("")


def test_what_waits_for_an_answer_can_stop_it(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("First", f"One{HOLD} two")
    script.say("Second", "Three")
    talk = Talk.open(profile, scripted.url)
    talk.send("First")
    expect(talk.text).to_have_text("One")
    talk.send("Second")
    talk.button("Don’t send").click()
    expect(talk.box).to_have_value("Second")
    talk.box.press("Control+Enter")
    talk.button("Stop the answer and send").click()
    expect(talk.questions).to_have_text(["First", "Second"])
    talk.expect_answer("Three")
    expect(talk.answers.first).to_have_attribute("data-status", "cancelled")


def test_an_answer_is_stopped_and_goes_on(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Count.", f"One{HOLD} two")
    talk = Talk.open(profile, scripted.url)
    talk.send("Count.")
    expect(talk.text).to_have_text("One")
    talk.box.press("Escape")
    talk.expect_answer("One", status="cancelled")
    expect(talk.answer).to_contain_text("Stopped.")
    expect(talk.button("Stop")).to_be_hidden()
    talk.button("Continue").click()
    expect(talk.answer).to_have_attribute("data-status", "in_progress")
    script.go_on("Count.")
    talk.expect_answer("One two")
    expect(talk.button("Continue")).to_be_hidden()
    talk.button("Previous version of this answer").click()
    talk.expect_answer("One", status="cancelled")


def test_an_answer_at_its_limit_says_so(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Count.", "one two three four five six seven eight nine ten")
    talk = Talk.open(profile, scripted.url)
    talk.button("Settings of this chat").click()
    talk.page.get_by_label("Longest answer").fill("3")
    talk.button("Save").click()
    talk.send("Count.")
    expect(talk.answer).to_have_attribute("data-status", "incomplete")
    expect(talk.answer).to_contain_text("Cut off: it came to its limit of tokens.")
    before = talk.text.text_content() or ""
    assert before
    talk.button("Continue").click()
    expect(talk.answer).to_contain_text("Version 2 / of 2")
    expect(talk.text).to_contain_text(re.compile(f"^{before}.+"))


def test_answers_and_questions_have_versions(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Who?", "Anna")
    script.say("Where?", "Here")
    talk = Talk.open(profile, scripted.url)
    talk.say("Who?", "Anna")
    script.say("Who?", "Bert")
    talk.button("Answer again").click()
    expect(talk.text).to_have_text("Bert")
    expect(talk.box).to_be_focused()
    expect(talk.answer).to_contain_text("Version 2 / of 2")
    talk.button("Previous version of this answer").click()
    talk.expect_answer("Anna")
    expect(talk.button("Previous version of this answer")).to_be_disabled()
    expect(talk.button("Next version of this answer")).to_be_focused()
    talk.button("Edit this question").click()
    edited = talk.page.get_by_role("textbox", name="Edited question")
    expect(edited).to_be_focused()
    edited.press("Escape")
    expect(talk.button("Edit this question")).to_be_focused()
    talk.button("Edit this question").click()
    edited.fill("Where?")
    edited.press("Enter")
    talk.expect_answer("Here")
    expect(talk.questions).to_have_text([re.compile("^Where.")])
    talk.button("Previous version of this question").click()
    expect(talk.text).to_have_text("Bert")
    talk.button("Next version of this question").click()
    expect(talk.text).to_have_text("Here")
    talk.page.reload()
    expect(talk.text).to_have_text("Here")


def test_keys_send_and_begin_lines(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("One\nTwo", "Lines")
    talk = Talk.open(profile, scripted.url)
    talk.box.press_sequentially("One")
    talk.box.press("Shift+Enter")
    talk.box.press_sequentially("Two")
    talk.box.press("Control+Enter")
    talk.expect_answer("Lines")
    expect(talk.questions).to_have_text(["One\nTwo"])


def test_the_page_works_under_a_prefix(
    profile: BrowserContext, scripted_servers: ScriptedServers
) -> None:
    scripted_servers.script.clear()
    scripted_servers.script.say("Hello", "Hi")
    url = scripted_servers.serve("--root-path", "/llm")
    talk = Talk.open(profile, f"{url.rstrip('/')}/llm/")
    talk.say("Hello", "Hi")
    talk.page.reload()
    talk.expect_answer("Hi")
    assert "/llm/#/c/" in talk.page.url
    scripted_servers.wait_idle()
