"""/docs in Chromium: every route is shown, can be tried, and needs the key of its server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.e2e.harness import RunningServer
from tests.page.conftest import ScriptedServers
from tests.page.script import HOLD, Script

AXE = Path(__file__).parents[2] / "clients/page/node_modules/axe-core/axe.min.js"


def opened(profile: BrowserContext, url: str, path: str = "/docs") -> Page:
    """A tab with the page, on which nothing may be asked of anybody else, or break its policy."""
    page = profile.new_page()
    odd: list[str] = []
    page.on("request", lambda one: one.url.startswith(url) or odd.append(one.url))
    page.on("console", lambda one: "Content Security" in one.text and odd.append(one.text))
    page.goto(url + path)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert not odd, odd
    return page


def route(page: Page, method: str, path: str) -> Locator:
    """The part of a route, unfolded."""
    name = re.compile(rf"^\s*{method.upper()}\s+{re.escape(path)}(\s|$)")
    found = page.locator("details.route").filter(has=page.locator("summary", has_text=name))
    found.locator("summary").first.click()
    return found


def test_every_route_and_schema_is_shown(
    profile: BrowserContext, demo_server: RunningServer
) -> None:
    page = opened(profile, demo_server.url)
    api: Any = httpx.get(f"{demo_server.url}/openapi.json").json()
    expect(page).to_have_title(f"Millstream {api['info']['version']}")
    routes = [(m.upper(), path) for path, methods in api["paths"].items() for m in methods]
    shown = page.locator("details.route > summary")
    expect(shown).to_have_count(len(routes))
    texts = shown.all_inner_texts()
    assert all(text.split()[:2] == list(one) for text, one in zip(texts, routes, strict=True))
    schemas = page.locator("details[id^=schema-]")
    expect(schemas).to_have_count(len(api["components"]["schemas"]))
    # A field with its limits, and a link to what it is made of.
    chat = route(page, "post", "/v1/chat/completions")
    expect(chat.get_by_role("heading", name="Request")).to_be_visible()
    # Words between backticks are code.
    expect(chat.locator("p code").first).to_have_text("stream")
    chat.get_by_role("link", name="ChatRequest").first.click()
    target = page.locator("#schema-ChatRequest")
    expect(target).to_have_attribute("open", "")
    expect(target.locator("tr", has_text="top_logprobs")).to_contain_text("at most")


def test_an_answer_is_read_while_it_comes_and_can_be_stopped(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    script.say("Count to 10", f"One{HOLD} two")
    page = opened(profile, scripted.url)
    chat = route(page, "post", "/v1/chat/completions")
    chat.get_by_text("As a command").click()
    expect(chat.locator("pre").first).to_contain_text(f"curl -N '{scripted.url}/v1/chat/")
    chat.get_by_role("button", name="Send").click()
    expect(chat.locator(".said")).to_have_text("One")
    expect(chat.get_by_role("status")).to_have_text("200 OK, events come")
    chat.get_by_role("button", name="Stop").click()
    expect(chat.get_by_role("status")).to_have_text("stopped")
    script.say("Count to 10", "Three")
    body = chat.get_by_role("textbox", name="body")
    body.press("Control+Enter")
    expect(chat.locator(".said")).to_have_text("Three")
    expect(chat.get_by_role("status")).to_have_text("200 OK, complete")
    chat.get_by_text("As it came").click()
    expect(chat.locator("pre").last).to_contain_text("data: [DONE]")
    body.fill(json.dumps({"messages": "x"}))
    chat.get_by_role("button", name="Send").click()
    expect(chat.get_by_role("status")).to_have_text("400 Bad Request")
    expect(chat.locator(".said")).to_contain_text("Error: messages")


def test_parameters_of_a_path_go_into_its_address(
    profile: BrowserContext, demo_server: RunningServer
) -> None:
    page = opened(profile, demo_server.url)
    one = route(page, "get", "/v1/models/{model}")
    address = one.get_by_role("textbox", name="address")
    expect(address).to_have_value(f"{demo_server.url}/v1/models/{{model}}")
    one.get_by_role("textbox", name="model").fill("a/b")
    expect(address).to_have_value(f"{demo_server.url}/v1/models/a%2Fb")
    one.get_by_role("textbox", name="model").fill("millstream-demo")
    address.press("Enter")
    expect(one.locator("pre").last).to_contain_text('"id": "millstream-demo"')


def test_a_server_with_keys_shows_its_routes_to_who_has_one(
    profile: BrowserContext, scripted_servers: ScriptedServers
) -> None:
    url = scripted_servers.serve("--api-key", "sesame")
    page = opened(profile, url)
    expect(page.get_by_role("alert")).to_contain_text("needs a valid API key")
    page.get_by_label("API key").fill("sesame")
    page.get_by_role("button", name="Load").click()
    models = route(page, "get", "/v1/models")
    expect(models.get_by_text("Needs an API key.")).to_be_visible()
    models.get_by_role("button", name="Send").click()
    expect(models.get_by_role("status")).to_have_text("200 OK")
    expect(page.get_by_role("alert")).to_have_count(0)
    # The chat page, in the same tab, knows it as well.
    page.goto(url)
    assert page.evaluate("sessionStorage.getItem('millstream.key')") == "sesame"


def test_behind_a_prefix_all_addresses_have_it(
    profile: BrowserContext, scripted_servers: ScriptedServers
) -> None:
    url = scripted_servers.serve("--root-path", "/llm")
    page = opened(profile, url, "/llm/docs")
    health = route(page, "get", "/health")
    expect(health.get_by_role("textbox", name="address")).to_have_value(f"{url}/llm/health")
    health.get_by_role("button", name="Send").click()
    expect(health.get_by_role("status")).to_have_text("200 OK")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    new_profile: Any, demo_server: RunningServer, scheme: str
) -> None:
    if not AXE.exists():
        pytest.skip("the pages' packages are not installed: make page")
    page = opened(new_profile(color_scheme=scheme), demo_server.url)
    route(page, "post", "/v1/chat/completions")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not serious, [(one["id"], [n["html"] for n in one["nodes"]][:3]) for one in serious]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_where_no_script_runs_a_sentence_says_so(
    new_profile: Any, demo_server: RunningServer, path: str
) -> None:
    page = new_profile(java_script_enabled=False).new_page()
    page.goto(demo_server.url + path)
    sentence = page.get_by_text("This page needs JavaScript")
    expect(sentence).to_be_visible()
    page = new_profile().new_page()
    page.route("**/page/*.js", lambda asked: asked.abort())
    page.goto(demo_server.url + path)
    expect(page.get_by_text("This page needs JavaScript")).to_be_visible()


def test_who_waits_for_the_script_does_not_see_that_sentence(
    profile: BrowserContext, demo_server: RunningServer
) -> None:
    page = profile.new_page()
    page.route("**/page/docs.js", lambda asked: None)
    page.goto(f"{demo_server.url}/docs", wait_until="commit")
    sentence = page.get_by_text("This page needs JavaScript")
    # Seconds count here, and this machine may be slow: it is the rule that is looked at.
    expect(sentence).to_have_css("animation-name", "late")
    expect(sentence).to_have_css("animation-duration", "3s")
