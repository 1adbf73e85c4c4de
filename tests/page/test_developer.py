"""The side panel: schemas, tools and their results, and the chat's request as programs that run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest
from playwright.sync_api import BrowserContext, Locator, expect

from tests.e2e.harness import RunningServer
from tests.page.conftest import ScriptedServers
from tests.page.script import Script, call
from tests.page.talk import Talk

_SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["count"],
    "additionalProperties": False,
}
_TOOL = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
_PROGRAMS = ("curl", "Python: openai", "Python: httpx")


def _panel(talk: Talk) -> Locator:
    panel = talk.page.get_by_role("complementary", name="For developers")
    if not panel.is_visible():
        talk.button("For developers").click()
    expect(panel).to_be_visible()
    return panel


def _use(panel: Locator, label: str, value: object) -> None:
    field = panel.locator(".field").filter(has=panel.page.get_by_label(label, exact=True))
    field.get_by_label(label, exact=True).fill(json.dumps(value))
    field.get_by_role("button", name="Use", exact=True).click()
    expect(field).to_contain_text("In use for every message of this chat.")


def _program(panel: Locator, name: str) -> str:
    panel.get_by_label("The request").select_option(label=name)
    return panel.locator("pre code").inner_text()


def _output(name: str, program: str, variables: Mapping[str, str]) -> str:
    """What the program prints: of the answer, or all events."""
    command = ["bash", "-c"] if name == "curl" else [sys.executable, "-c"]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", **variables}
    done = subprocess.run(
        [*command, program], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_answers_are_json_of_the_schema(
    profile: BrowserContext, demo_server: RunningServer
) -> None:
    talk = Talk.open(profile, demo_server.url)
    panel = _panel(talk)
    _use(panel, "JSON schema", _SCHEMA)
    talk.send("Count to 5.")
    expect(talk.answer).to_have_attribute("data-status", "completed")
    answer = json.loads(talk.text.locator("code").inner_text())
    assert answer.keys() == {"count"}
    assert answer["count"] in range(1, 10)
    panel.get_by_role("button", name="Use none").click()
    expect(panel.get_by_label("JSON schema")).to_have_value("")
    settings = talk.page.request.get(f"{demo_server.url}/v1/chats/{talk.chat}").json()["settings"]
    assert settings == {}


@pytest.mark.parametrize(
    ("label", "typed", "said"),
    [
        ("JSON schema", '{"type": "object"', "not whole yet"),
        ("JSON schema", '{"type": object}', 'line 1, column 10: "o" cannot stand there'),
        ("JSON schema", '{\n  "a": 1,\n}', 'line 3, column 1: "}" cannot stand there'),
        ("JSON schema", "[]", "an object in braces, not a list"),
        ("JSON schema", '{"type": "text"}', '"text" is no type'),
        ("JSON schema", '{"properties": {"a": 1}}', "property a is a schema"),
        ("Tools", '[{"type": "function"}]', 'has no "name"'),
        ("Tools", '[{"name": "a"}, {"name": "b", "parameters": 1}]', 'Tool 2: "parameters"'),
    ],
)
def test_json_is_checked_as_one_types(
    profile: BrowserContext, scripted: ScriptedServers, label: str, typed: str, said: str
) -> None:
    panel = _panel(Talk.open(profile, scripted.url))
    field = panel.locator(".field").filter(has=panel.page.get_by_label(label, exact=True))
    field.get_by_label(label, exact=True).fill(typed)
    expect(field.locator(".problem")).to_contain_text(said)
    expect(field.get_by_role("button", name="Use", exact=True)).to_be_disabled()


def test_what_is_typed_outlives_a_closed_panel(
    profile: BrowserContext, scripted: ScriptedServers
) -> None:
    talk = Talk.open(profile, scripted.url)
    panel = _panel(talk)
    panel.get_by_label("JSON schema").fill('{"half": ')
    panel.get_by_label("JSON schema").press("Escape")
    expect(panel).to_be_hidden()
    expect(_panel(talk).get_by_label("JSON schema")).to_have_value('{"half": ')


def test_what_the_server_refuses_is_said(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Hello", "Hi")
    talk = Talk.open(profile, scripted.url)
    talk.say("Hello", "Hi")
    panel = _panel(talk)
    panel.get_by_label("Tools", exact=True).fill(json.dumps([_TOOL, _TOOL]))
    panel.get_by_role("button", name="Use", exact=True).last.click()
    expect(panel.locator(".problem")).to_contain_text("get_weather")


def test_the_developer_gives_the_results_of_calls(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Weather?", call("get_weather", city="Oslo", days=[1, 2]))
    script.say('{"degrees": 7}', "It is **7** degrees.")
    talk = Talk.open(profile, scripted.url)
    panel = _panel(talk)
    _use(panel, "Tools", [_TOOL])
    panel.get_by_role("button", name="Close").click()
    expect(talk.button("For developers")).to_be_focused()
    talk.send("Weather?")
    called = talk.answers.first.locator(".tool-call")
    expect(called).to_contain_text("get_weather")
    expect(called).to_contain_text("waits for its result")
    expect(called.locator("pre").first).to_have_text(
        '{\n  "city": "Oslo",\n  "days": [\n    1,\n    2\n  ]\n}'
    )
    talk.page.get_by_label("Result of get_weather").fill('{"degrees": 7}')
    talk.button("Send the result").click()
    expect(talk.answers).to_have_count(2)
    talk.expect_answer("It is 7 degrees.")
    expect(talk.answer.locator("strong")).to_have_text("7")
    expect(called.locator(".tool-result")).to_contain_text('"degrees": 7')
    expect(talk.page.get_by_role("form", name="Results of tools")).to_be_hidden()


def test_the_request_is_shown_as_programs_that_run(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("First", "<think>\nHm\n</think>\nOne")
    question = 'It\'s "2" \\ $HOME `now`\nand \N{FOX FACE}?'
    script.say(question, "Two and no more")
    talk = Talk.open(profile, scripted.url)
    talk.send("First")
    expect(talk.answer).to_have_attribute("data-status", "completed")
    panel = _panel(talk)
    _use(panel, "Tools", [_TOOL])
    talk.box.fill(question)
    for name in _PROGRAMS:
        program = _program(panel, name)
        assert all(part in program for part in ("First", "One", "reasoning", "get_weather"))
        assert _said(name, _output(name, program, {})) == "Two and no more"


def test_the_key_is_a_variable_of_the_programs(
    profile: BrowserContext, scripted_servers: ScriptedServers
) -> None:
    scripted_servers.script.clear()
    scripted_servers.script.say("Hello!", "Hi there")
    url = scripted_servers.serve("--api-key", "secret-0123")
    page = profile.new_page()
    page.goto(url)
    page.get_by_role("dialog").get_by_role("textbox").fill("secret-0123")
    page.get_by_role("dialog").get_by_role("textbox").press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    panel = _panel(Talk(page))
    for name in _PROGRAMS:
        program = _program(panel, name)
        assert "secret" not in program
        output = _output(name, program, {"MILLSTREAM_API_KEY": "secret-0123"})
        assert _said(name, output) == "Hi there"


def _said(name: str, output: str) -> str:
    return (output if name != "curl" else "".join(_deltas(output))).strip()


def _deltas(events: str) -> list[str]:
    lines = [line.removeprefix("data: ") for line in events.splitlines()]
    read = [json.loads(line) for line in lines if line.startswith("{")]
    return [each["delta"] for each in read if each["type"] == "response.output_text.delta"]
