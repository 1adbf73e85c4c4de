"""Whatever a model says, none of it runs, and nothing of another host is loaded.

The pages have a policy that forbids both. It must not even be needed: a violation of it fails here,
as do elements and attributes that no answer may bring.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.page import payloads
from tests.page.conftest import ScriptedServers
from tests.page.payloads import HARM, PAYLOADS
from tests.page.script import Script, call
from tests.page.talk import Talk

_WATCH = """
window.harm = [];
window.ran = () => { window.harm.push("a script ran"); };
window.alert = window.ran;
document.addEventListener("securitypolicyviolation", (event) => {
    window.harm.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""
_KINDS = ["SCRIPTS", "HANDLERS", "LINKS", "PICTURES", "MUTATIONS", "MARKDOWN", "FORMULAS"]


class Watch:
    """What pages of a profile load and do that they should not."""

    def __init__(self, profile: BrowserContext, url: str) -> None:
        self._foreign: list[str] = []
        self._url = url
        profile.add_init_script(_WATCH)
        profile.on("request", lambda request: self._see(request.url))
        profile.on("page", lambda page: page.on("dialog", lambda box: self._see(box.message)))

    def _see(self, url: str) -> None:
        if not url.startswith((f"{self._url}/", "data:")):
            self._foreign.append(url)

    def check(self, page: Page) -> None:
        """Fails if anything has happened."""
        assert page.evaluate("window.harm") == []
        assert page.evaluate(HARM) == []
        assert self._foreign == []


@pytest.fixture
def watch(profile: BrowserContext, scripted: ScriptedServers) -> Watch:
    return Watch(profile, scripted.url)


@pytest.mark.parametrize("kind", _KINDS)
def test_no_payload_does_harm_at_any_letter(
    profile: BrowserContext,
    watch: Watch,
    scripted: ScriptedServers,
    markdown_program: Path,
    kind: str,
) -> None:
    wanted = {"Accept": "text/html"}
    policy = httpx.get(scripted.url, headers=wanted).headers["content-security-policy"]
    html = '<!doctype html><html lang="en"><head><script src="/harness.js"></script></head><body>'

    def answer(route: Route) -> None:
        if route.request.url.endswith(".js"):
            route.fulfill(path=markdown_program, content_type="text/javascript")
        else:
            headers = {"Content-Security-Policy": policy}
            route.fulfill(body=html, content_type="text/html", headers=headers)

    profile.route("**/harness*", answer)
    page = profile.new_page()
    page.goto(f"{scripted.url}/harness")
    for payload in getattr(payloads, kind):
        # Also in the middle of a line, where other rules hold, and behind something.
        for text in (payload, f"Look: {payload} here", f"- a\n\n  {payload}\n\nAnd more."):
            for step in (1, 7):
                page.evaluate("args => stream(...args)", [text, step])
        try:
            watch.check(page)
        except AssertionError as error:
            error.add_note(payload)
            raise
        page.evaluate("document.body.replaceChildren()")


def test_no_answer_does_harm_in_a_chat(
    profile: BrowserContext, watch: Watch, scripted: ScriptedServers, script: Script
) -> None:
    talk = Talk.open(profile, scripted.url)
    for number in range(0, len(PAYLOADS), 16):
        said = "\n\n***\n\n".join(PAYLOADS[number : number + 16])
        script.say(f"Answer {number}", f"{said}\n\nEnd.", seconds=0, by_letter=True)
        talk.send(f"Answer {number}")
        expect(talk.answer).to_have_attribute("data-status", "completed")
        expect(talk.text).to_contain_text("End.")
        watch.check(talk.page)
    talk.page.reload()
    expect(talk.text).to_contain_text("End.")
    script.say("Well?", "**Well.**", seconds=0)
    talk.say("Well?", "Well.")
    watch.check(talk.page)


def test_no_thought_call_or_result_does_harm(
    profile: BrowserContext, watch: Watch, scripted: ScriptedServers, script: Script
) -> None:
    all_of_them = "\n\n".join(PAYLOADS).replace("<think>", "")
    name = "<img src=x onerror=ran()>"
    # Models see names without such letters; who reads the call sees the tool's own.
    called = re.sub(r"[^\w-]", "_", name)
    thought = f"<think>\n{all_of_them}\n</think>\n"
    script.say("Think", thought + call(called, html=all_of_them), seconds=0)
    script.say(all_of_them.strip(), "Seen.", seconds=0)
    tools = [{"type": "function", "name": name, "description": name}]
    talk = Talk.open(profile, scripted.url)
    talk.button("For developers").click()
    talk.page.get_by_label("Tools", exact=True).fill(json.dumps(tools))
    talk.page.get_by_role("button", name="Use", exact=True).last.click()
    expect(talk.page.get_by_text("In use for every message of this chat.")).to_be_visible()
    talk.send("Think")
    expect(talk.answer).to_have_attribute("data-status", "completed")
    talk.answer.locator(".thinking > summary").click()
    expect(talk.answer.locator(".thinking .markdown")).to_contain_text("ran()")
    expect(talk.answer.locator(".tool-name")).to_have_text(name)
    watch.check(talk.page)
    talk.page.get_by_label(f"Result of {name}").fill(all_of_them)
    talk.button("Send the result").click()
    expect(talk.answers).to_have_count(2)
    talk.expect_answer("Seen.")
    watch.check(talk.page)


def test_no_question_title_or_import_does_harm(
    profile: BrowserContext, watch: Watch, scripted: ScriptedServers, script: Script
) -> None:
    payload = "<img src=x onerror=ran()><svg onload=ran()>"
    all_of_them = "\n\n".join(PAYLOADS)
    script.say(all_of_them.strip(), "Seen.", seconds=0)
    talk = Talk.open(profile, scripted.url)
    talk.send(all_of_them)
    talk.expect_answer("Seen.")
    chats = f"{scripted.url}/v1/chats"
    renamed = talk.page.request.post(f"{chats}/{talk.chat}", data={"title": payload})
    assert renamed.ok
    exported = talk.page.request.get(f"{chats}/{talk.chat}/export").text()
    hostile = exported.replace("Seen.", json.dumps(all_of_them)[1:-1])
    imported = talk.page.request.post(f"{chats}/import", data=json.loads(hostile))
    assert imported.ok, imported.text()
    talk.page.reload()
    expect(talk.list.first).to_contain_text(payload)
    expect(talk.page.get_by_role("heading", level=1)).to_have_text(payload)
    talk.page.goto(f"{scripted.url}/#/c/{imported.json()['id']}")
    expect(talk.text).to_contain_text("ran()")
    watch.check(talk.page)
    talk.page.get_by_role("searchbox").first.fill("<script>ran()</script>")
    expect(talk.list).to_have_count(2)
    watch.check(talk.page)
