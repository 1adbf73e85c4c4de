"""Chats over a real socket: visitors with their jars, reloads, restarts, and the programs that show
them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .harness import RunningServer
from .kept import LONG, KeptServers

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptServers]:
    folder = tmp_path_factory.mktemp("chats")
    with KeptServers(folder / "log") as servers:
        servers.start(flags(folder))
        yield servers


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, servers: KeptServers) -> list[str]:
    """The flags of the server that runs."""
    return flags(tmp_path_factory.getbasetemp() / "chats0")


def flags(folder: Path) -> list[str]:
    return ["--store", str(folder / "store.db")]


def visitor(servers: KeptServers) -> httpx.Client:
    """Somebody with a jar of cookies."""
    return httpx.Client(base_url=f"{servers.url}/v1", timeout=LONG)


def say(client: httpx.Client, content: str, **body: Any) -> Any:
    """The response to a message in the current chat."""
    response = client.post("/chats/current/messages", json={"content": content, **body})
    assert response.status_code == 200, response.text
    return response.json()


def events_of(response: httpx.Response, *, limit: int = 10**6) -> list[dict[str, Any]]:
    """The events of a stream, or the first of them."""
    found: list[dict[str, Any]] = []
    for line in response.iter_lines():
        if line.startswith("data: "):
            found.append(json.loads(line.removeprefix("data: ")))
        if len(found) == limit:
            break
    return found


def test_two_visitors_and_a_restart(servers: KeptServers, store: list[str]) -> None:
    with visitor(servers) as ada, visitor(servers) as bob:
        say(ada, "I am Ada")
        say(bob, "I am Bob")
        one, other = (client.get("/chats/current").json() for client in (ada, bob))
        assert bob.get(f"/chats/{one['id']}").status_code == 404
        assert [chat["id"] for chat in bob.get("/chats").json()["data"]] == [other["id"]]
        cookies = ada.cookies
    servers.stop()
    servers.start(store)
    with visitor(servers) as ada, visitor(servers) as carol:
        ada.cookies = cookies
        assert ada.get("/chats/current").json() == one
        assert ada.get("/chats", params={"query": "ada"}).json()["data"][0]["id"] == one["id"]
        assert carol.get("/chats", params={"query": "ada"}).json()["data"] == []


def test_who_reloads_in_mid_answer_misses_nothing(servers: KeptServers) -> None:
    with visitor(servers) as client:
        body = {"content": "Tell me a long story", "stream": True}
        with servers.holding():
            with client.stream("POST", "/chats/current/messages", json=body) as response:
                before = events_of(response, limit=5)
            chat = client.get("/chats/current").json()
            (running,) = chat["running"]
            assert running == before[0]["response"]["id"] == chat["messages"][-1]["id"]
        where = {"stream": "true", "starting_after": str(before[-1]["sequence_number"])}
        with client.stream("GET", f"/responses/{running}", params=where) as response:
            after = events_of(response)
        numbers = [event["sequence_number"] for event in [*before, *after]]
        assert numbers == list(range(len(numbers)))
        deltas = [
            e["delta"] for e in [*before, *after] if e["type"] == "response.output_text.delta"
        ]
        chat = client.get("/chats/current").json()
        answer = chat["messages"][-1]
        said = [item["content"] for item in answer["items"] if item["type"] == "message"]
        assert "".join(deltas) == "".join(part["text"] for parts in said for part in parts)
        assert (chat["running"], answer["status"]) == ([], "completed")


def run(*command: str | Path, url: str, **environment: str) -> str:
    """What a program prints that is given the server's address."""
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | {"MILLSTREAM_URL": url} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_chat_session_sh(servers: KeptServers, tmp_path: Path) -> None:
    program, jar = ROOT / "clients" / "curl" / "chat_session.sh", str(tmp_path / "jar")
    first = run(program, "My name is Anna.", url=servers.url, JAR=jar)
    run(program, "What is my name?", url=servers.url, JAR=jar)
    shown = run(program, "--show", url=servers.url, JAR=jar)
    assert [line for line in shown.splitlines() if line.startswith("user: ")] == [
        "user: My name is Anna.",
        "user: What is my name?",
    ]
    assert first.strip() in shown
    run(program, "--new", "Something else", url=servers.url, JAR=jar)
    assert "Anna" not in run(program, "--show", url=servers.url, JAR=jar)


def test_session_chat(servers: KeptServers) -> None:
    output = run(sys.executable, ROOT / "clients" / "python" / "session_chat.py", url=servers.url)
    shown = [line for line in output.splitlines() if re.fullmatch(r"\(.*\)", line)]
    assert shown == ["(2 versions of 4 messages)", "(2 versions of the question)", "(completed)"]


def test_the_page_about_chats(servers: KeptServers, tmp_path: Path) -> None:
    """Its examples run, those of Python as one program."""
    page = (ROOT / "docs" / "chats.md").read_text()
    page = page.replace("http://127.0.0.1:8080", servers.url)
    (shell,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    script = f"set -eu; cd {tmp_path}\n{shell}"
    *events, chat = run("bash", "-c", script, url=servers.url).splitlines()
    assert sum(event == "event: response.completed" for event in events) == 2
    assert [one["role"] for one in json.loads(chat)["messages"]] == ["user", "assistant"] * 2
    program = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    assert run(sys.executable, "-c", program, url=servers.url).strip()


def test_a_cut_answer_of_a_real_model_goes_on_as_if_it_had_not_been(
    demo_server: RunningServer,
) -> None:
    with httpx.Client(base_url=f"{demo_server.url}/v1", timeout=LONG) as client:
        chat = client.post("/chats", json={"settings": {"temperature": 0}}).json()["id"]
        asked = {"content": "Count to 10", "max_output_tokens": 6}
        first = client.post(f"/chats/{chat}/messages", json=asked).json()
        begun = first["output"][0]["content"][0]["text"]
        whole = client.post(f"/chats/{chat}/continue", json={}).json()
        text = whole["output"][0]["content"][0]["text"]
        assert (first["status"], whole["status"]) == ("incomplete", "completed")
        assert text == "\n".join(map(str, range(1, 11)))
        assert text.startswith(begun)
        answer = client.get(f"/chats/{chat}").json()["messages"][-1]
        assert answer["versions"] == [first["id"], whole["id"]]
