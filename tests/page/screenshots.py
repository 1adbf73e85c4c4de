"""Pictures of the chat page for the README, of a real server with the demo model.

python -m tests.page.screenshots [folder]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import BrowserContext, expect, sync_playwright

from tests.e2e.harness import RunningServer
from tests.page.conftest import chromium
from tests.page.talk import Talk

_SIZES = {"wide": {"width": 1120, "height": 744}, "narrow": {"width": 390, "height": 812}}
_EARLIER = ["Count to 10.", "What is 3 plus 4?"]
_TALK = ["My name is Anna.", "What is my name?", "Count to 5."]


def _talk(profile: BrowserContext, url: str) -> Talk:
    """A page with a few chats, the last of them open."""
    talk = Talk.open(profile, url)
    for question in [*_EARLIER, _TALK[0]]:
        talk.button("New chat").click()
        _ask(talk, question)
    for question in _TALK[1:]:
        _ask(talk, question)
    return talk


def _ask(talk: Talk, question: str) -> None:
    number = talk.questions.count() if "#/c/" in talk.page.url else 0
    talk.send(question)
    expect(talk.questions).to_have_count(number + 1)
    expect(talk.answer).to_have_attribute("data-status", "completed")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as logs, sync_playwright() as playwright:
        server = RunningServer(["--store", "memory"], Path(logs) / "log", is_warm=True)
        browser = chromium(playwright)
        assert browser is not None, "there is no Chromium here"
        for colours in ("light", "dark"):
            profile = browser.new_context(
                color_scheme=colours, viewport=_SIZES["wide"], reduced_motion="reduce"
            )
            talk = _talk(profile, server.url)
            for name, size in _SIZES.items():
                talk.page.set_viewport_size(size)
                talk.page.evaluate("document.activeElement.blur()")
                talk.page.mouse.move(0, 0)
                talk.page.screenshot(path=folder / f"chat-{colours}-{name}.png")
            profile.close()
        browser.close()
        server.stop()


if __name__ == "__main__":
    main()
