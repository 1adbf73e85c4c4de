"""The server that tests of pages stand on says what its script says, and waits where it should."""

from __future__ import annotations

import json

import httpx

from tests.page.conftest import ScriptedServers
from tests.page.script import HOLD, UNSCRIPTED, Script, call


def test_answers_are_those_of_the_script(scripted: ScriptedServers, script: Script) -> None:
    answer = "<think>\nHm.\n</think>\nYes, \N{FOX FACE}.\n" + call("now")
    script.say("Well?", answer, seconds=0, by_letter=True)
    tools = [{"type": "function", "name": "now"}]
    asked = {"content": "Well?", "tools": tools}
    with httpx.Client(base_url=f"{scripted.url}/v1", timeout=30) as http:
        chat = http.post("/chats", json={}).json()["id"]
        thought, said, called = http.post(f"/chats/{chat}/messages", json=asked).json()["output"]
        other = http.post(f"/chats/{chat}/messages", json={"content": "What else?"}).json()
    assert thought["content"][0]["text"].strip() == "Hm."
    assert said["content"][0]["text"].strip() == "Yes, \N{FOX FACE}."
    assert (called["name"], json.loads(called["arguments"])) == ("now", {})
    assert other["output"][0]["content"][0]["text"] == UNSCRIPTED


def test_an_answer_waits_where_it_is_held(scripted: ScriptedServers, script: Script) -> None:
    script.say("Count.", f"one{HOLD} two{HOLD} three", seconds=0)
    with httpx.Client(base_url=f"{scripted.url}/v1", timeout=30) as http:
        begun = http.post("/responses", json={"input": "Count.", "background": True}).json()
        where, seen, text = f"/responses/{begun['id']}", ["one", "one two"], ""
        with http.stream("GET", where, params={"stream": "true"}) as events:
            for line in events.iter_lines():
                event = json.loads(line.partition("data: ")[2] or "{}")
                text += event["delta"] if event.get("type", "").endswith("text.delta") else ""
                if seen and text == seen[0]:
                    seen.pop(0)
                    script.go_on("Count.")
    assert text == "one two three"
    assert not seen
