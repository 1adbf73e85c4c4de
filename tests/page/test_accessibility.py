"""The chat page by keyboard, and by axe, which finds nothing serious in any colours and widths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.page.conftest import ScriptedServers
from tests.page.script import HOLD, Script, call
from tests.page.talk import Talk

_AXE = Path(__file__).parents[2] / "clients" / "page" / "node_modules" / "axe-core" / "axe.min.js"
_WIDE = {"width": 1300, "height": 800}
_NARROW = {"width": 390, "height": 800}
_ANSWER = """<think>
Let me **think**.
</think>
# A heading

Words, *more* of them, `code`, [a link](https://a.b) and ![a picture](https://a.b/c.png).

- [x] done
- [ ] to do

> A quote with $x^2$.

| a | b |
|---|--:|
| 1 | 2 |

```python
# a comment
def f(x: int = 1) -> str:
    return "text"
```

$$
\\frac{a}{b}
$$

<div>raw</div>
"""


@pytest.fixture
def audit() -> Callable[[Page, str], None]:
    """Fails if axe finds something serious or critical in what a page shows."""
    if not _AXE.exists():
        pytest.skip("the pages' packages are not installed: make page")
    program = _AXE.read_text(encoding="utf-8")

    def check(page: Page, what: str) -> None:
        page.evaluate(program)
        found: list[dict[str, Any]] = page.evaluate("async () => (await axe.run()).violations")
        serious = [
            (each["id"], [node["html"][:120] for node in each["nodes"]])
            for each in found
            if each["impact"] in {"serious", "critical"}
        ]
        assert not serious, what

    return check


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("size", [_WIDE, _NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing_serious(
    new_profile: Callable[..., BrowserContext],
    scripted: ScriptedServers,
    script: Script,
    audit: Callable[[Page, str], None],
    colours: str,
    size: dict[str, int],
) -> None:
    script.say("Hello", _ANSWER, seconds=0)
    script.say("Weather?", call("get_weather", city="Oslo"), seconds=0)
    talk = Talk.open(new_profile(color_scheme=colours, viewport=size), scripted.url)
    page = talk.page
    audit(page, "a new chat")
    talk.send("Hello")
    expect(talk.answer).to_have_attribute("data-status", "completed")
    talk.answer.locator("summary").click()
    audit(page, "an answer")
    talk.button("For developers").click()
    page.get_by_role("button", name="Example").last.click()
    page.get_by_role("button", name="Use", exact=True).last.click()
    page.get_by_label("JSON schema").fill("{")
    audit(page, "the panel")
    page.get_by_role("complementary").get_by_role("button", name="Close").click()
    talk.send("Weather?")
    expect(talk.button("Send the result")).to_be_visible()
    audit(page, "results of tools")
    talk.button("Settings of this chat").click()
    audit(page, "settings")


def _tab_to(page: Page, label: str, *, most: int = 60) -> None:
    """Presses Tab until the control of this name has the focus."""
    name = "() => (document.activeElement.ariaLabel || document.activeElement.textContent).trim()"
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate(name) == label:
            return
    raise AssertionError(f"no way to {label}")


def test_everything_can_be_reached_and_used_by_keyboard(
    profile: BrowserContext, scripted: ScriptedServers, script: Script
) -> None:
    profile.grant_permissions(["clipboard-read", "clipboard-write"])
    script.say("Hello", _ANSWER + HOLD, seconds=0)
    talk = Talk.open(profile, scripted.url)
    page = talk.page
    expect(talk.box).to_be_focused()
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    expect(talk.text).to_contain_text("raw")
    page.keyboard.press("Escape")
    expect(talk.answer).to_have_attribute("data-status", "cancelled")

    _tab_to(page, "To the message box")
    page.keyboard.press("Enter")
    expect(talk.box).to_be_focused()

    _tab_to(page, "For developers")
    page.keyboard.press("Enter")
    panel = page.get_by_role("complementary", name="For developers")
    expect(panel.get_by_role("button", name="Close")).to_be_focused()
    page.keyboard.press("Tab")
    expect(panel.get_by_label("JSON schema")).to_be_focused()
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(talk.button("For developers")).to_be_focused()

    thinking = talk.answer.locator("details.thinking")
    _tab_to(page, "Thought for less than a second")
    page.keyboard.press("Enter")
    expect(thinking.locator("strong")).to_have_text("think")
    _tab_to(page, "Copy code")
    page.keyboard.press("Space")
    expect(talk.answer.locator("figcaption button")).to_have_text("Copied")
    assert "def f(x: int = 1)" in page.evaluate("navigator.clipboard.readText()")
    _tab_to(page, "Copy answer")
    page.keyboard.press("Enter")
    copied = talk.answer.locator("footer").get_by_role("button", name="Copied")
    expect(copied).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").startswith("# A heading")
