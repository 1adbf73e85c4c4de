"""What tests do on the chat page, and what they find there, as its readers would."""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, Locator, Page, expect


class Talk:
    """One tab with the chat page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.box = page.get_by_role("textbox", name="Message")
        self.questions = page.locator("article[data-role=user]")
        self.answers = page.locator("article[data-role=assistant]")
        self.list = page.get_by_role("navigation", name="Chats").locator("li")

    @classmethod
    def open(cls, profile: BrowserContext, url: str) -> Talk:
        """A new tab in which the page has loaded."""
        talk = cls(profile.new_page())
        talk.page.goto(url)
        expect(talk.box).to_be_visible()
        return talk

    @property
    def answer(self) -> Locator:
        """The last answer."""
        return self.answers.last

    @property
    def text(self) -> Locator:
        """What the last answer says."""
        return self.answer.locator(".answer")

    @property
    def chat(self) -> str:
        """The id of the open chat."""
        expect(self.page).to_have_url(re.compile("#/c/chat_"))
        return self.page.url.rpartition("/")[2]

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def send(self, text: str) -> None:
        """Types it and presses Enter."""
        self.box.fill(text)
        self.box.press("Enter")

    def say(self, text: str, answer: str) -> None:
        """Sends it, and waits for this answer to be complete."""
        number = self.answers.count()
        self.send(text)
        expect(self.answers).to_have_count(number + 1)
        self.expect_answer(answer)

    def expect_answer(self, text: str, *, status: str = "completed") -> None:
        """Waits until the last answer has ended, and is exactly this."""
        expect(self.answer).to_have_attribute("data-status", status)
        expect(self.text).to_have_text(text)
