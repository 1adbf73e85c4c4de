"""Sessions: what a browser stores on a server without keys is its own."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.api.openai.responses.conftest import Desk, desk
from tests.api.talk import byte_tokenizer, marked_tokenizer, talk

__all__ = ["byte_tokenizer", "desk", "marked_tokenizer", "talk"]

PATH = "/v1/sessions"
DAY = 86_400


async def begin(desk: Desk, **options: Any) -> dict[str, str]:
    """The header of a new session."""
    response = await desk.ask("POST", PATH, **options)
    assert response.json() == {"object": "session", "is_new": True}
    given, *attributes = response.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} < set(attributes)
    return {"Cookie": f"theme=dark; {given}"}


async def test_what_is_stored_in_a_session_is_not_there_for_others(desk: Desk) -> None:
    desk.say("Hello")
    one, other = await begin(desk), await begin(desk)
    made = await desk.make(headers=one)
    path = f"/v1/responses/{made['id']}"
    assert await desk.get(path, headers=one) == made
    for headers in (other, None):
        assert (await desk.ask("GET", path, headers=headers)).status_code == 404
    again = await desk.ask("POST", PATH, headers=one)
    assert again.json() == {"object": "session", "is_new": False}
    assert "set-cookie" not in again.headers


@pytest.mark.parametrize(
    "change", [lambda value: value + "x", lambda value: "0" + value[1:], lambda value: "x"]
)
async def test_a_cookie_that_was_not_made_here_is_refused(desk: Desk, change: Any) -> None:
    name, _, value = (await begin(desk))["Cookie"].partition("; ")[2].partition("=")
    if change(value) == value:
        return
    headers = {"Cookie": f"{name}={change(value)}"}
    refused = await desk.post(headers=headers)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_session"
    assert (await desk.ask("GET", "/health", headers=headers)).status_code == 200
    begun = await desk.ask("POST", PATH, headers=headers)
    assert begun.json()["is_new"] is True


async def test_a_session_can_be_forgotten(desk: Desk) -> None:
    headers = await begin(desk)
    response = await desk.ask("DELETE", PATH, headers=headers)
    assert response.json() == {"object": "session.deleted", "deleted": True}
    assert "millstream_session=; Max-Age=0" in response.headers["set-cookie"]


async def test_a_session_ends_when_it_was_not_used_for_long(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    settings = {"session_days": 10}
    headers = await begin(desk, settings=settings)

    async def used() -> httpx.Response:
        # Its answer is a 404, which renews a cookie as any answer does.
        return await desk.ask("GET", "/v1/responses/resp_x", headers=headers, settings=settings)

    now += DAY - 1
    assert "set-cookie" not in (await used()).headers
    now += 2
    renewed = (await used()).headers["set-cookie"]
    assert f"Max-Age={10 * DAY}; Path=/; HttpOnly; SameSite=Lax" in renewed
    forgotten = await desk.ask("DELETE", PATH, headers=headers, settings=settings)
    assert forgotten.headers.get_list("set-cookie") == [
        "millstream_session=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"
    ]
    now += 9.5 * DAY
    assert "set-cookie" not in (await used()).headers
    begun = await desk.ask("POST", PATH, headers=headers, settings=settings)
    assert begun.json()["is_new"] is True
    headers = {"Cookie": renewed.partition(";")[0]}
    begun = await desk.ask("POST", PATH, headers=headers, settings=settings)
    assert begun.json()["is_new"] is False


async def test_over_https_the_cookie_is_sent_by_https_alone(desk: Desk) -> None:
    response = await desk.ask("POST", "https://test" + PATH)
    assert response.headers["set-cookie"].endswith("; Secure")


async def test_a_server_with_keys_has_no_sessions(desk: Desk) -> None:
    response = await desk.ask("POST", PATH, settings={"api_key": ["k"]})
    assert response.status_code == 401
    keyed = {"Authorization": "Bearer k"}
    response = await desk.ask("POST", PATH, headers=keyed, settings={"api_key": ["k"]})
    assert response.status_code == 400
    assert "set-cookie" not in response.headers


async def test_a_secret_is_made_once(desk: Desk) -> None:
    store = desk.context.store
    assert store is not None
    secret = await store.secret("sessions")
    assert len(secret) == 32
    assert await store.secret("sessions") == secret
    assert await store.secret("other") != secret
