"""Who may open a WebSocket: keys, names, pages, paths."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from millstream.api.context import ServerContext
from tests.api.serving import context
from tests.api.socket_client import Refusal, connected

__all__ = ["context"]

KEYS = {"api_key": ["first", "second"]}
PAGE = "https://chat.example"
INSECURE = "openai-insecure-api-key."


async def refused(context: ServerContext, *, status: int, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as found:
        async with connected(context, **options):
            pass
    response = found.value.response
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    return found.value


@pytest.mark.parametrize(
    ("headers", "protocols"),
    [
        ([("Authorization", "Bearer second")], []),
        ([("X-Api-Key", "first")], []),
        ([], ["responses", INSECURE + "first"]),
        ([], [INSECURE + "second", "other"]),
        ([("Authorization", "Bearer first")], [INSECURE + "first"]),
    ],
)
async def test_a_key_opens(context: ServerContext, headers: Any, protocols: Any) -> None:
    async with connected(context, headers=headers, protocols=protocols, **KEYS) as line:
        assert line.accepted["subprotocol"] == ("responses" if "responses" in protocols else None)


@pytest.mark.parametrize(
    ("headers", "protocols"),
    [
        ([], []),
        ([("Authorization", "Bearer third")], []),
        ([], ["responses"]),
        ([], [INSECURE]),
        ([], [INSECURE + "third"]),
        ([], ["first"]),
        ([], [INSECURE + "first", INSECURE + "second"]),
        ([("X-Api-Key", "second")], [INSECURE + "first"]),
        ([], [INSECURE + "\u20ac"]),
    ],
)
async def test_no_key_opens_nothing(context: ServerContext, headers: Any, protocols: Any) -> None:
    found = await refused(context, status=401, headers=headers, protocols=protocols, **KEYS)
    assert found.code == "invalid_api_key"
    assert found.response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://test.evil.example",
        "http://test:81",
        "test",
        "http://",
    ],
)
@pytest.mark.parametrize("allowed", [None, PAGE])
async def test_pages_of_others_open_nothing(
    context: ServerContext, origin: str, allowed: str | None
) -> None:
    headers = [("Origin", origin), ("Cookie", "a=b")]
    found = await refused(context, status=403, headers=headers, allowed_origins=allowed)
    assert found.code == "origin_not_allowed"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ([], None),
        ([("Origin", "http://test")], None),
        ([("Origin", "https://test")], None),
        ([("Origin", "https://x"), ("Sec-Fetch-Site", "same-origin")], None),
        ([("Origin", PAGE)], PAGE),
        ([("Origin", PAGE)], "https://other.example," + PAGE),
        ([("Origin", PAGE)], "*"),
        ([("Origin", "null")], "*"),
    ],
)
async def test_pages_that_may_open_one(
    context: ServerContext, headers: Any, allowed: str | None
) -> None:
    async with connected(context, headers=headers, allowed_origins=allowed) as line:
        assert line.accepted


async def test_a_page_of_others_needs_no_key_to_be_refused(context: ServerContext) -> None:
    headers = [("Origin", PAGE), ("X-Api-Key", "first")]
    await refused(context, status=403, headers=headers, **KEYS)


async def test_the_server_is_called_by_its_name(context: ServerContext) -> None:
    found = await refused(context, status=403, allowed_hosts="llm.example")
    assert found.code == "host_not_allowed"


@pytest.mark.parametrize("path", ["/", "/v1/chat/completions", "/v1/responses/", "/health", "/x"])
async def test_other_paths_have_none(context: ServerContext, path: str) -> None:
    assert (await refused(context, status=404, path=path)).code == "not_found"


@pytest.mark.parametrize("path", ["/llm/v1/responses", "/v1/responses"])
async def test_a_proxy_may_show_it_elsewhere(context: ServerContext, path: str) -> None:
    async with connected(context, path=path, root_path="/llm") as line:
        assert line.accepted
    await refused(context, status=404, path="/other/v1/responses", root_path="/llm")


async def test_a_refusal_has_a_line_in_the_log(
    context: ServerContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "millstream.requests")
    headers = [("Origin", "https://evil.example"), ("X-Request-Id", "mine")]
    await refused(context, status=403, headers=headers)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "GET /v1/responses 403 id=mine error=origin_not_allowed "
        "refused_origin=https://evil.example flag=--allowed-origins time="
    )
