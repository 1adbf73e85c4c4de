"""The list of chats, the addresses of chats, drafts, and what is set for a chat."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import BrowserContext, expect

from tests.page.conftest import ScriptedServers
from tests.page.script import Script
from tests.page.talk import Talk


@pytest.fixture
def talk(profile: BrowserContext, scripted: ScriptedServers, script: Script) -> Talk:
    """A tab with two chats, of which the second is open."""
    script.say("Apples", "Are red")
    script.say("Pears", "Are green")
    talk = Talk.open(profile, scripted.url)
    talk.say("Apples", "Are red")
    talk.button("New chat").click()
    expect(talk.answers).to_have_count(0)
    talk.say("Pears", "Are green")
    expect(talk.list).to_have_text(["Pears", "Apples"])
    return talk


def choose(talk: Talk, chat: str, action: str) -> None:
    talk.button(f"More about {chat}").click()
    talk.button(action).click()


def test_chats_have_addresses_and_drafts(talk: Talk) -> None:
    talk.box.fill("More about pears")
    talk.list.get_by_role("link", name="Apples").click()
    expect(talk.text).to_have_text("Are red")
    expect(talk.page).to_have_title("Apples – Millstream")
    expect(talk.box).to_have_value("")
    expect(talk.box).to_be_focused()
    talk.box.fill("More about apples")
    talk.page.go_back()
    expect(talk.text).to_have_text("Are green")
    expect(talk.box).to_have_value("More about pears")
    talk.page.go_forward()
    expect(talk.text).to_have_text("Are red")
    expect(talk.box).to_have_value("More about apples")
    talk.page.reload()
    expect(talk.text).to_have_text("Are red")
    expect(talk.box).to_have_value("More about apples")
    expect(talk.list.filter(has_text="Apples").get_by_role("link")).to_have_attribute(
        "aria-current", "page"
    )


def test_chats_are_searched(talk: Talk) -> None:
    search = talk.page.get_by_role("searchbox", name="Search chats")
    search.fill("red")
    expect(talk.list).to_have_text(["Apples"])
    search.fill("purple")
    expect(talk.page.get_by_text("No chat has these words.")).to_be_visible()
    search.fill("")
    expect(talk.list).to_have_count(2)


def test_chats_are_renamed_and_deleted(talk: Talk) -> None:
    choose(talk, "Pears", "Rename")
    title = talk.page.get_by_label("New title")
    expect(title).to_be_focused()
    title.fill("Fruit")
    title.press("Enter")
    expect(talk.list).to_have_text(["Fruit", "Apples"])
    expect(talk.page).to_have_title("Fruit – Millstream")
    expect(talk.button("More about Fruit")).to_be_focused()
    choose(talk, "Fruit", "Rename")
    title.fill(" ")
    title.press("Enter")
    expect(talk.page).to_have_title("Pears – Millstream")
    choose(talk, "Pears", "Delete")
    dialog = talk.page.get_by_role("dialog", name="Delete this chat?")
    dialog.press("Escape")
    expect(dialog).to_be_hidden()
    choose(talk, "Pears", "Delete")
    dialog.get_by_role("button", name="Delete").click()
    expect(talk.list).to_have_text(["Apples"])
    expect(talk.page).to_have_title("New chat – Millstream")
    expect(talk.page).to_have_url(re.compile("#/$"))
    talk.page.reload()
    expect(talk.list).to_have_text(["Apples"])


def test_long_lists_come_in_pages(talk: Talk, scripted: ScriptedServers) -> None:
    for number in range(40):
        talk.page.request.post(f"{scripted.url}/v1/chats", data={"title": f"Chat {number}"})
    talk.page.reload()
    expect(talk.list).to_have_count(40)
    talk.button("Show more").click()
    expect(talk.list).to_have_count(42)
    expect(talk.button("Show more")).to_be_hidden()
    with talk.page.expect_response(re.compile("v1/chats.limit=42")):
        choose(talk, "Pears", "Rename")
        talk.page.get_by_label("New title").fill("Cherries")
        talk.page.get_by_label("New title").press("Enter")
    expect(talk.list.filter(has_text="Cherries")).to_have_count(1)
    expect(talk.list).to_have_count(42)


def test_chats_are_exported_and_imported(talk: Talk, tmp_path: Path, script: Script) -> None:
    script.say("Pears", "Are yellow")
    talk.button("Answer again").click()
    expect(talk.text).to_have_text("Are yellow")
    expect(talk.answer).to_have_attribute("data-status", "completed")
    with talk.page.expect_download() as download:
        choose(talk, "Pears", "Export as JSON")
    assert download.value.suggested_filename == "Pears.json"
    file = tmp_path / "chat.json"
    download.value.save_as(file)
    before = talk.chat
    talk.page.get_by_label("File of a chat").set_input_files(file)
    expect(talk.list).to_have_text(["Pears", "Pears", "Apples"])
    assert talk.chat != before
    expect(talk.text).to_have_text("Are yellow")
    talk.button("Previous version of this answer").click()
    expect(talk.text).to_have_text("Are green")
    file.write_text("{", encoding="utf-8")
    talk.page.get_by_label("File of a chat").set_input_files(file)
    expect(talk.page.get_by_role("alert")).to_have_text("“chat.json” is not a JSON file.")
    file.write_text(json.dumps({"a": 1}), encoding="utf-8")
    talk.page.get_by_label("File of a chat").set_input_files(file)
    refusal = talk.page.get_by_role("alert")
    expect(refusal).to_contain_text("“chat.json” is not a chat that Millstream has exported (")
    talk.button("Close this message").click()
    expect(refusal).to_be_hidden()


def test_settings_are_the_chats_own(talk: Talk, scripted: ScriptedServers) -> None:
    page = talk.page
    talk.button("Settings of this chat").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("3")
    expect(page.get_by_text("This should be 2 or less.")).to_be_visible()
    expect(talk.button("Save")).to_be_disabled()
    page.get_by_label("Temperature").fill("0,5")
    page.get_by_label("Stop at").fill("END\nSTOP")
    page.get_by_label("Thinking", exact=True).select_option("low")
    talk.button("Save").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(talk.button("Settings of this chat")).to_be_focused()
    kept = page.request.get(f"{scripted.url}/v1/chats/{talk.chat}").json()["settings"]
    assert kept == {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "stop": ["END", "STOP"],
        "reasoning": {"effort": "low"},
    }
    talk.list.get_by_role("link", name="Apples").click()
    expect(talk.text).to_have_text("Are red")
    talk.button("Settings of this chat").click()
    expect(page.get_by_label("System prompt")).to_have_value("")


def test_what_is_set_before_the_first_message_holds_for_it(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Hello", "one two three four five six")
    talk = Talk.open(profile, scripted.url)
    talk.button("Settings of this chat").click()
    talk.page.get_by_label("Longest answer").fill("2")
    talk.button("Save").click()
    talk.page.reload()
    talk.send("Hello")
    expect(talk.answer).to_have_attribute("data-status", "incomplete")


def test_bounds_of_settings_are_those_of_the_api(
    scripted: ScriptedServers,
) -> None:
    document = httpx.get(f"{scripted.url}/openapi.json").json()
    fields = document["components"]["schemas"]["ResponseRequest"]["properties"]
    source = Path(__file__).parents[2] / "clients/page/src/talk/sampling.ts"
    rows = re.findall(r"\{ name: \"(\w+)\".*\}", source.read_text(encoding="utf-8"))
    lines = [line for line in source.read_text(encoding="utf-8").splitlines() if "{ name: " in line]
    assert len(rows) == len(lines) == 9
    for name, line in zip(rows, lines, strict=True):
        schema = next(one for one in fields[name]["anyOf"] if one["type"] != "null")
        said = {key: float(value) for key, value in re.findall(r"(min|max): (-?[\d.]+)", line)}
        assert ("isWhole: true" in line) == (schema["type"] == "integer"), name
        assert ("isAboveMin: true" in line) == ("exclusiveMinimum" in schema), name
        if name == "seed":
            continue
        minimum = schema.get("minimum", schema.get("exclusiveMinimum"))
        assert said.get("min") == minimum, name
        assert said.get("max") == schema.get("maximum"), name
