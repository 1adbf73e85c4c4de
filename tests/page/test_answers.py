"""Answers in the chat page: what is folded, what is JSON, what is copied, what grows in place."""

from __future__ import annotations

import json
import re

from playwright.sync_api import BrowserContext, expect

from tests.page.conftest import ScriptedServers
from tests.page.script import HOLD, Script
from tests.page.talk import Talk


def test_thoughts_stay_open_while_they_grow(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Think", f"<think>\nOne **two**{HOLD} three\n\nfour{HOLD}\n</think>\nFive")
    talk = Talk.open(profile, scripted.url)
    talk.send("Think")
    thinking = talk.answer.locator("details")
    expect(thinking.locator("summary")).to_have_text("Thinking")
    expect(thinking.locator("p")).to_have_count(0)
    thinking.locator("summary").click()
    expect(thinking.locator("p")).to_have_text(["One two"])
    strong = thinking.locator("strong").element_handle()
    script.go_on("Think")
    expect(thinking.locator("p")).to_have_text(["One two three", "four"])
    script.go_on("Think")
    expect(talk.answer).to_have_attribute("data-status", "completed")
    expect(thinking.locator("summary")).to_have_text(re.compile(r"Thought for (\d+|less than a) s"))
    expect(thinking.locator("p")).to_have_text(["One two three", "four"])
    # What was shown first is the same element still, and so is what the reader has opened.
    assert strong.evaluate("element => element.isConnected")
    expect(talk.text.locator(":scope > .markdown")).to_have_text("Five")


def test_json_is_shown_letter_by_letter(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    said = json.dumps({"a": "**b** _c_", "d": [1, "<b>"]}, indent=2)
    script.say("JSON", said.replace(":", f":{HOLD}", 1))
    script.say("Almost", '{"a": **b**}')
    talk = Talk.open(profile, scripted.url)
    talk.send("JSON")
    expect(talk.text.locator("code")).to_contain_text('{\n  "a":')
    script.go_on("JSON")
    expect(talk.answer).to_have_attribute("data-status", "completed")
    assert talk.text.locator("code").inner_text() == said
    talk.say("Almost", '{"a": b}')


def test_code_and_answers_are_copied_without_tls_too(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    # Browsers give a page without TLS, other than one of this machine, no clipboard.
    profile.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    script.say("Code", "See:\n\n```py\nx = 1\n\ny = '<b>'\n```\n")
    talk = Talk.open(profile, scripted.url)
    talk.send("Code")
    expect(talk.answer).to_have_attribute("data-status", "completed")
    for name, copied in [("Copy code", "x = 1\n\ny = '<b>'"), ("Copy answer", "See:\n\n```py")]:
        talk.answer.get_by_role("button", name=name).click()
        expect(talk.answer.get_by_role("button", name="Copied")).to_be_visible()
        talk.box.fill("")
        talk.box.press("Control+v")
        expect(talk.box).to_have_value(re.compile(f"^{re.escape(copied)}"))
        expect(talk.answer.get_by_role("button", name=name)).to_be_visible()
