"""A process killed while it writes: what was acknowledged is there, nothing twice or half."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream.store.address import StoreAddress
from millstream.store.store import Store
from tests.store.things import OWNER, batch, finished, texts

_KILLS = 100
_PACED = 4
"""Of so many runs, one commits at the writer's pace: several operations at a time."""

# Forks for every run, which is quicker than to start. Four tasks answer in a conversation and in a
# chain, one answer after another each, and say what was acknowledged.
_CHILD = """
import asyncio, os, sys
from millstream.store import writer
from millstream.store.address import StoreAddress
from millstream.store.store import Store
from tests.store.things import batch, conversation, finished, items, response

def say(*words):
    os.write(1, " ".join(map(str, words)).encode() + b"\\n")

async def answer(store, run, task):
    name, previous = f"c{run}.{task}", None
    await store.create_conversation(conversation(name), [])
    say("conversation", name)
    for number in range(10**6):
        # In turns: in the conversation, and as a chain of its own.
        in_conversation = number % 2 == 0
        identifier = f"r{run}.{task}.{number}"
        begun = response(
            identifier,
            conversation_id=name if in_conversation else None,
            previous_id=None if in_conversation else previous,
        )
        await store.begin(begun, items(f"{identifier}.in1", f"{identifier}.in2"))
        say("begun", identifier)
        for first in range(0, 6, 3):
            await store.log(identifier, batch(first, first + 2))
            say("logged", identifier, first)
        outputs = items(f"{identifier}.out1", f"{identifier}.out2")
        await finished(store, identifier, outputs=outputs, last_events=batch(6, 8))
        say("finished", identifier)
        previous = previous if in_conversation else identifier

async def main(run):
    store = await Store.open(StoreAddress.parse(sys.argv[1]))
    await asyncio.gather(*(answer(store, run, task) for task in range(4)))

for run in range(int(sys.argv[2])):
    if not sys.stdin.readline():
        break
    child = os.fork()
    if not child:
        say(os.getpid())
        if run % int(sys.argv[3]):
            writer._PACE = 0.0
        asyncio.run(main(run))
    os.waitpid(child, 0)
    say("over")
"""


def run_and_kill(parent: subprocess.Popen[bytes], num_lines: int) -> list[list[str]]:
    """Kills a run when it has said that much. Returns all that it said."""
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(b"\n")
    parent.stdin.flush()
    run = int(parent.stdout.readline())
    said = [parent.stdout.readline() for _ in range(num_lines)]
    os.kill(run, signal.SIGKILL)
    while said[-1] not in (b"over\n", b""):
        said.append(parent.stdout.readline())
    assert said.pop() == b"over\n"
    return [line.decode().split() for line in said]


async def check_response(store: Store, identifier: str, acknowledged: set[str]) -> None:
    """It is as far as was acknowledged, or as one operation after that."""
    found = await store.response(identifier, owner=OWNER)
    if found is None:
        assert not acknowledged
        return
    page = await store.inputs(identifier, owner=OWNER, after=None, limit=9, is_descending=False)
    assert texts(page.items) == [f"{identifier}.in1", f"{identifier}.in2"]
    outputs = texts(await store.outputs(identifier, owner=OWNER))
    logged = await store.events(identifier, after=-1, limit_bytes=10**6)
    assert logged == [batch(first, first + 2) for first in (0, 3, 6)][: len(logged)]
    if found.status == "completed":
        assert outputs == [f"{identifier}.out1", f"{identifier}.out2"]
        assert found.resource == {"id": identifier, "is_done": True}
        assert len(logged) == 3
    else:
        assert "finished" not in acknowledged
        assert outputs == []
        assert len(logged) >= sum(word.startswith("logged") for word in acknowledged)
        assert len(logged) < 3


async def check_conversation(store: Store, name: str) -> None:
    """It holds its finished responses in order, each whole and once."""
    held = texts(await store.all_conversation_items(name, owner=OWNER))
    assert held is not None
    whole = []
    for number in range(0, len(held) // 2 + 1, 2):
        identifier = f"r{name[1:]}.{number}"
        found = await store.response(identifier, owner=OWNER)
        if found is not None and found.status == "completed":
            whole += [f"{identifier}.{part}" for part in ("in1", "in2", "out1", "out2")]
    assert held == whole


async def check(store: Store, said: list[list[str]]) -> int:
    """Compares what is there with what a run has said. Returns of how many responses."""
    acknowledged: dict[str, set[str]] = defaultdict(set)
    for what, name, *rest in said:
        acknowledged[name].add(" ".join([what, *rest]))
    responses = [name for name in acknowledged if name.startswith("r")]
    for name in responses:
        await check_response(store, name, acknowledged[name])
    for name in acknowledged.keys() - responses:
        await check_conversation(store, name)
    left = await store.abandoned()
    assert len(left) <= 4
    for one in left:
        await check_response(store, one.id, acknowledged[one.id])
        await finished(store, one.id, status="failed", keeps_events=False)
    assert await store.abandoned() == []
    return len(responses)


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    if sys.platform == "win32":
        pytest.skip("has no fork")
    command = [sys.executable, "-c", _CHILD, str(tmp_path / "store.db"), str(_KILLS)]
    command += [str(_PACED)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) as process:
        yield process
        os.killpg(process.pid, signal.SIGKILL)


async def test_a_process_that_is_killed_again_and_again(
    parent: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    address = StoreAddress.parse(str(tmp_path / "store.db"))
    assert address is not None
    moments = random.Random(16)
    num_checked = 0
    for _ in range(_KILLS):
        said = await asyncio.to_thread(run_and_kill, parent, moments.randint(1, 80))
        store = await Store.open(address)
        num_checked += await check(store, said)
        await store.close()
    assert num_checked > _KILLS
