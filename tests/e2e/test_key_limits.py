"""Keys of a file on a real server: official SDKs wait as long as they are told, and what the
operator sees of each key."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from .harness import RunningServer, wait_until
from .metrics import scraped
from .wire import LONG, EventReader, messages

FIRST, SECOND, ADMIN = "sk-first", "sk-second", "sk-admin"
CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "any", "messages": messages("Tell me"), "max_tokens": 3}


def entry(label: str, key: str, **limits: int) -> str:
    lines = [f'label = "{label}"', f'key = "{key}"', *(f"{k} = {v}" for k, v in limits.items())]
    return "\n".join(["[[keys]]", *lines, ""])


KEYS = entry("first", FIRST, max_concurrent_requests=1) + entry(
    "second", SECOND, requests_per_minute=2
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    path.write_text(KEYS)
    return path


@pytest.fixture(scope="module")
def server(
    fleet: list[RunningServer],
    tmp_path_factory: pytest.TempPathFactory,
    endless_model: Path,
    file: Path,
) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("key-limits") / "server.log"
    flags = ["--model-id", str(endless_model), "--kv-cache-memory", "64MiB"]
    flags += ["--api-keys-file", str(file), "--api-key", ADMIN]
    server = RunningServer(flags, log, is_warm=True)
    fleet.append(server)
    yield server
    fleet.remove(server)
    server.stop()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def with_openai(url: str) -> str | None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=FIRST, max_retries=50) as client:
        return client.chat.completions.create(**ASKED).choices[0].finish_reason


def with_anthropic(url: str) -> str | None:
    with anthropic.Anthropic(base_url=url, api_key=FIRST, max_retries=50) as client:
        return client.messages.create(**ASKED).stop_reason


def refusals(server: RunningServer) -> float:
    samples = scraped(server, **bearer(ADMIN))
    return samples.by("millstream_key_refused_total", "key", "limit").get(
        ("first", "concurrent_requests"), 0
    )


@pytest.mark.parametrize("ask", [with_openai, with_anthropic])
def test_an_sdk_that_is_refused_tries_again_until_there_is_room(
    server: RunningServer, ask: Callable[[str], str | None]
) -> None:
    before, said = refusals(server), list[Any]()
    asking = threading.Thread(target=lambda: said.append(ask(server.url)))
    body = ASKED | {"max_tokens": LONG, "stream": True}
    options: dict[str, Any] = {"json": body, "headers": bearer(FIRST), "timeout": 60}
    with httpx.stream("POST", f"{server.url}{CHAT}", **options) as response:
        reader = EventReader(response)  # closes the response when nobody has it
        reader.next()
        with server.paused_engine():
            asking.start()
            wait_until(lambda: refusals(server) > before, "the second one is refused")
            assert said == []
    asking.join(timeout=60)
    assert said in (["length"], ["max_tokens"])


def test_sdks_read_what_is_left(server: RunningServer) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=SECOND, max_retries=0) as client:
        answer = client.chat.completions.with_raw_response.create(**ASKED)
        assert answer.headers["x-ratelimit-limit-requests"] == "2"
        client.chat.completions.create(**ASKED)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**ASKED)
    assert refused.value.code == "rate_limit_exceeded"
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 30
    with (
        anthropic.Anthropic(base_url=server.url, api_key=SECOND, max_retries=0) as client,
        pytest.raises(anthropic.RateLimitError) as told,
    ):
        client.messages.create(**ASKED)
    assert told.value.response.headers["anthropic-ratelimit-requests-limit"] == "2"
    for key in (FIRST, ADMIN):
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
            client.chat.completions.create(**ASKED)


def test_lines_of_the_log_have_the_label(server: RunningServer) -> None:
    headers = bearer(FIRST) | {"x-request-id": "labelled"}
    httpx.post(f"{server.url}{CHAT}", json=ASKED, headers=headers, timeout=60)
    wait_until(lambda: " id=labelled " in server.log(), "the line of the request")
    assert re.search(r" id=labelled owner=first completion=", server.log())
    for key in (FIRST, SECOND, ADMIN):
        assert key not in server.log()


def test_keys_come_and_go_while_the_server_runs(server: RunningServer, file: Path) -> None:
    def status(key: str) -> int:
        return httpx.get(f"{server.url}/v1/models", headers=bearer(key), timeout=60).status_code

    def write(text: str) -> None:
        new = file.with_suffix(".new")
        new.write_text(text)
        os.replace(new, file)

    assert (status(FIRST), status("sk-third")) == (200, 401)
    write(entry("third", "sk-third"))
    wait_until(lambda: status("sk-third") == 200, "the new key is known")
    assert (status(FIRST), status(ADMIN)) == (401, 200)
    write("no TOML")
    wait_until(lambda: "the keys that were known stay" in server.log(), "the bad file is told")
    assert status("sk-third") == 200
    write(KEYS)
    wait_until(lambda: status(FIRST) == 200, "the first key is known again")
