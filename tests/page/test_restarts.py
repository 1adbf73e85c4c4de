"""A server that ends, or is killed, and is started again while a page is open."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.page.conftest import ScriptedServers
from tests.page.script import HOLD
from tests.page.talk import Talk
from tests.ports import free_port


@pytest.fixture
def port() -> int:
    """One that is free, and still is when the server is started again."""
    return free_port()


def test_a_server_that_was_restarted_shows_what_it_kept(
    profile: BrowserContext,
    scripted_servers: ScriptedServers,
    tmp_path: Path,
    port: int,
) -> None:
    script = scripted_servers.script
    script.clear()
    script.say("Count.", f"One{HOLD} two")
    script.say("More.", "Three")
    flags = ["--store", str(tmp_path / "store.db"), "--port", str(port)]
    talk = Talk.open(profile, scripted_servers.serve(*flags))
    talk.send("Count.")
    expect(talk.text).to_have_text("One")
    # What has arrived is what the store has: events are stored before anybody gets them.
    scripted_servers.kill()
    expect(talk.page.get_by_text("What was said is kept.")).to_be_visible()
    expect(talk.text).to_have_text("One")
    scripted_servers.serve(*flags)
    talk.expect_answer("One", status="failed")
    expect(talk.answer).to_contain_text("The server was restarted while it made this answer.")
    expect(talk.answer).to_contain_text("What was said until then is kept.")
    expect(talk.page.get_by_text("It is asked again")).to_be_hidden()
    talk.button("Continue").click()
    script.go_on("Count.")
    talk.expect_answer("One two")
    talk.say("More.", "Three")
    scripted_servers.clear()


def test_a_server_that_has_forgotten_everything_says_so(
    profile: BrowserContext, scripted_servers: ScriptedServers, port: int
) -> None:
    script = scripted_servers.script
    script.clear()
    script.say("Hello", "Hi")
    flags = ["--store", "memory", "--port", str(port)]
    talk = Talk.open(profile, scripted_servers.serve(*flags))
    talk.say("Hello", "Hi")
    scripted_servers.stop()
    scripted_servers.serve(*flags)
    talk.page.reload()
    expect(talk.page.get_by_text("This chat is not on the server")).to_be_visible()
    talk.button("New chat").click()
    talk.say("Hello", "Hi")
    scripted_servers.clear()
