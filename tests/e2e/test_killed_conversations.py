"""Servers killed in mid-answer: what a client was told stays true, and it can go on from there.

MILLSTREAM_KILLS: how many servers are killed; 15 unless it says otherwise.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from .kept import CALLED, LONG, KeptServers, data_of, frames_of, number_of, said, written

_KILLS = int(os.environ.get("MILLSTREAM_KILLS", "15"))
_MOST_EVENTS = 600
_LIVES_OF_A_CONVERSATION = 5
_LOOKED_AT_AGAIN = 60
_TOOLS = [{"type": "function", "name": CALLED, "parameters": {"type": "object"}}]
_CHAT_TOOLS = [{"type": "function", "function": {"name": CALLED}}]
_RESUMABLE = {"X-Resumable": "true"}
_FINAL = {"completed", "failed"}


@dataclass
class Told:
    """An answer, as far as a client was told."""

    kind: str
    conversation: str | None = None
    identifier: str = ""
    frames: list[bytes] = field(default_factory=list)
    is_over: bool = False

    @property
    def path(self) -> str:
        place = "chat/completions" if self.kind == "chat" else "responses"
        return f"/v1/{place}/{self.identifier}"

    @property
    def is_completed(self) -> bool:
        """Whether the client was told that it is completed."""
        if not self.frames:
            return False
        last = data_of(self.frames[-1])
        return last is None if self.kind == "chat" else last["type"] == "response.completed"


class Life:
    """The clients of one server until it is killed, after so many events."""

    def __init__(
        self, http: httpx.AsyncClient, servers: KeptServers, chance: random.Random
    ) -> None:
        self._http = http
        self._servers = servers
        self._left = chance.randrange(_MOST_EVENTS)
        self._is_killed = False
        self.told: list[Told] = []
        self.num_lost = 0

    async def run(self, conversation: str) -> None:
        """Lets all clients ask until there is nobody who answers."""
        self._count(0)
        kinds = ["background", "response", "chat", "plain", "background"]
        clients = [self._ask_on(kind, None) for kind in kinds]
        await asyncio.gather(*clients, self._ask_on("response", conversation))

    async def _ask_on(self, kind: str, conversation: str | None) -> None:
        number = 0
        while not self._is_killed:
            number += 1
            told = Told(kind, conversation)
            try:
                await self._ask(told, f"{kind} {number} {id(told)}")
            except httpx.TransportError:
                assert self._is_killed, "a connection broke, and nobody was killed"
            if told.frames:
                self.told.append(told)
            else:
                self.num_lost += conversation is not None

    async def _ask(self, told: Told, text: str) -> None:
        path, headers, body = _request(told, text)
        asking = self._http.stream("POST", path, headers=headers, json=body)
        async with asking as response:
            assert response.status_code == 200, await response.aread()
            async for frame in frames_of(response):
                event = data_of(frame)
                if not told.frames:
                    told.identifier = (event if told.kind == "chat" else event["response"])["id"]
                told.frames.append(frame)
                self._count(1)
        told.is_over = True

    def _count(self, number: int) -> None:
        self._left -= number
        if self._left <= 0 and not self._is_killed:
            self._is_killed = True
            self._servers.strike()


def _request(told: Told, text: str) -> tuple[str, Mapping[str, str], dict[str, Any]]:
    """Path, headers and body that ask for an answer."""
    if told.kind == "chat":
        body = {"messages": [{"role": "user", "content": text}], "tools": _CHAT_TOOLS}
        return "/v1/chat/completions", _RESUMABLE, body | {"stream": True}
    asked: dict[str, Any] = {"input": text, "stream": True, "tools": _TOOLS}
    if told.conversation is not None:
        asked["conversation"] = told.conversation
    if told.kind == "background":
        asked["background"] = True
    return "/v1/responses", _RESUMABLE if told.kind == "response" else {}, asked


class Auditor:
    """Compares what clients were told with what a server says now."""

    def __init__(self, http: httpx.AsyncClient, chance: random.Random) -> None:
        self._http = http
        self._chance = chance

    async def check(self, told: Told) -> None:
        """Reads on where the client was, and then everything from the start."""
        was_completed = told.is_completed
        if told.kind == "plain":
            await self._check_plain(told)
            return
        told.frames += await self._events(told, after=len(told.frames) - 1)
        told.is_over = True
        assert [number_of(frame) for frame in told.frames] == list(range(len(told.frames)))
        assert await self._events(told, after=-1) == told.frames
        last = data_of(told.frames[-1])
        if told.kind == "chat":
            assert last is None or last["error"]["code"] == "server_restarted"
        else:
            response = await self._response(told)
            assert last["type"] == f"response.{response['status']}"
            assert last["response"] == response
            assert written(response) == said(told.frames)
        assert told.is_completed or not was_completed

    async def _check_plain(self, told: Told) -> None:
        """The client may have been told a little more or less than what is kept."""
        refused = await self._http.get(told.path, params={"stream": "true"})
        assert refused.json()["error"]["code"] == "events_not_kept"
        response = await self._response(told)
        if told.is_completed:
            assert response == data_of(told.frames[-1])["response"]
            return
        kept, known = written(response), said(told.frames)
        for index in kept.keys() & known.keys():
            one, other = kept[index], known[index]
            assert one.startswith(other) or other.startswith(one)
        if response["status"] == "failed":
            assert not told.is_over

    async def _response(self, told: Told) -> Any:
        response = (await self._http.get(told.path)).json()
        assert response["status"] in _FINAL, response
        if response["status"] == "failed":
            assert response["error"]["code"] == "server_restarted"
        for item in response["output"]:
            assert item["status"] in ("completed", "incomplete"), item
        return response

    async def _events(self, told: Told, *, after: int) -> list[bytes]:
        query, headers = {"stream": "true"}, {}
        if after >= 0 and self._chance.random() < 0.5:
            query["starting_after"] = str(after)
        elif after >= 0:
            headers["Last-Event-ID"] = str(after)
        reading = self._http.stream("GET", told.path, params=query, headers=headers)
        async with reading as response:
            if response.status_code == 204:  # to Last-Event-ID, at the end of all
                return []
            assert response.status_code == 200, await response.aread()
            return [frame async for frame in frames_of(response)]

    async def check_conversation(self, name: str, told: list[Told], *, num_lost: int) -> None:
        """Everything that was said in it is in it once, and in order.

        num_lost: how many answers at most were begun in it of which no client knows.
        """
        path = f"/v1/conversations/{name}/items"
        there = await self._list(path)
        assert len(set(there)) == len(there)
        expected = []
        for each in told:
            expected += await self._list(f"{each.path}/input_items")
            expected += [item["id"] for item in (await self._response(each))["output"]]
        known = set(expected)
        assert [item for item in there if item in known] == expected
        assert num_lost or there == expected

    async def _list(self, path: str) -> list[str]:
        identifiers: list[str] = []
        query = {"order": "asc", "limit": "100"}
        while True:
            page = (await self._http.get(path, params=query)).json()
            identifiers += [item["id"] for item in page["data"]]
            if not page["has_more"]:
                return identifiers
            query["after"] = identifiers[-1]


async def test_nothing_a_client_was_told_is_lost(tmp_path: Path) -> None:
    chance = random.Random(f"kills {_KILLS}")
    flags = ["--store", str(tmp_path / "store.db"), "--max-concurrent-requests", "64"]
    everything: list[Told] = []
    conversation, in_it, num_lost, num_new = "", list[Told](), 0, 0
    with KeptServers(tmp_path / "servers.log") as servers:
        for number in range(_KILLS + 1):
            if chance.random() < 0.3:  # also while it starts, and ends what another left
                servers.begin(flags)
                await asyncio.sleep(chance.uniform(0, 0.6))
                servers.kill()
            url = await asyncio.to_thread(servers.start, flags)
            async with httpx.AsyncClient(base_url=url, timeout=LONG) as http:
                auditor = Auditor(http, chance)
                if number == _KILLS:
                    break
                for told in everything[len(everything) - num_new :]:
                    await auditor.check(told)
                if conversation:
                    await auditor.check_conversation(conversation, in_it, num_lost=num_lost)
                if number % _LIVES_OF_A_CONVERSATION == 0:
                    created = await http.post("/v1/conversations", json={})
                    conversation, in_it, num_lost = created.json()["id"], [], 0
                life = Life(http, servers, chance)
                await life.run(conversation)
            servers.kill()
            everything += life.told
            num_new = len(life.told)
            in_it += [told for told in life.told if told.conversation is not None]
            num_lost += life.num_lost
        async with httpx.AsyncClient(base_url=url, timeout=LONG) as http:
            auditor = Auditor(http, chance)
            for told in chance.sample(everything, k=min(len(everything), _LOOKED_AT_AGAIN)):
                await auditor.check(told)
        servers.stop()
        assert "Traceback" not in servers.log()
    assert {told.kind for told in everything} == {"background", "response", "chat", "plain"}
