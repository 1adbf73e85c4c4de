"""Places that several workers share: exact over all of them, and free when one has ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from random import Random

import pytest

from millstream.errors import Overloaded
from millstream.http_workers.numbering import request_ids
from millstream.http_workers.shared_admission import SharedAdmission
from millstream.runtime.admission import Admission, LocalAdmission
from millstream.shared_memory import SharedMemory
from tests.fakes import make_request

LIMIT = 8


class Places:
    """The places of workers 0 and 1, as each of them sees them."""

    def __init__(self, *, limit: int = LIMIT, max_waiting_tokens: int | None = None) -> None:
        memory = SharedMemory.create(SharedAdmission.num_bytes(limit))
        self.hub, *self.workers = (
            SharedAdmission(memory, limit=limit, max_waiting_tokens=max_waiting_tokens)
            for _ in range(3)
        )
        self.ids = [request_ids(worker, start=0) for worker in range(2)]

    def take(self, worker: int, count: int = 1) -> list[int]:
        """New requests of a worker, which have places."""
        ids = [next(self.ids[worker]) for _ in range(count)]
        assert self.workers[worker].take(ids)
        return ids


def test_places_of_all_workers_are_counted() -> None:
    places = Places()
    first, second = places.take(0, 5), places.take(1, 2)
    for each in (places.hub, *places.workers):
        assert each.num_taken == 7
    assert not places.workers[1].take([next(places.ids[1]) for _ in range(2)])
    assert places.hub.num_taken == 7
    third = places.take(1)
    assert not places.workers[0].take([next(places.ids[0])])
    places.workers[0].give_back(first[0])
    places.workers[0].give_back(first[0])
    assert places.hub.num_taken == LIMIT - 1
    for one in second + third:
        places.workers[1].give_back(one)
    assert places.hub.num_taken == 4


def test_tokens_that_wait_with_any_worker_count() -> None:
    places = Places(max_waiting_tokens=10)
    (first,), (second,) = places.take(0), places.take(1)
    places.workers[0].send(make_request(first, (1,) * 6))
    with pytest.raises(Overloaded, match="6 prompt tokens"):
        places.workers[1].send(make_request(second, (1,) * 5))
    assert [each.num_waiting_tokens for each in places.workers] == [6, 6]
    places.workers[0].on_news(first)
    places.workers[1].send(make_request(second, (1,) * 15))
    assert [each.num_waiting_tokens for each in places.workers] == [15, 15]
    places.workers[1].give_back(second)
    assert places.hub.num_waiting_tokens == 0


def test_turns_are_counted_over_all_workers() -> None:
    places = Places()
    (a,), (b,), (c,) = places.take(0), places.take(1), places.take(0)
    for worker, one in ((0, a), (1, b), (0, c)):
        places.workers[worker].send(make_request(one, (1, 2)))
    assert [places.workers[0].position(a), places.workers[0].position(c)] == [1, 3]
    assert places.workers[1].position(b) == 2
    places.workers[0].on_run(a)
    assert places.workers[0].position(a) is None
    assert [places.workers[1].position(b), places.workers[0].position(c)] == [1, 2]
    places.workers[1].on_end(b)
    assert places.workers[0].position(c) == 1


def test_a_worker_that_is_gone_holds_nothing() -> None:
    places = Places(max_waiting_tokens=10)
    (mine,), others = places.take(0), places.take(1, 3)
    places.workers[0].send(make_request(mine, (1, 2)))
    for one in others:
        places.workers[1].send(make_request(one, (1,)))
    places.hub.clear(1)
    assert places.hub.num_taken == 1
    assert places.workers[0].num_waiting_tokens == 2
    assert places.workers[0].position(mine) == 1
    places.workers[0].give_back(mine)
    assert places.hub.num_taken == 0


@pytest.mark.parametrize("seed", range(20))
def test_one_worker_alone_sees_what_a_process_alone_does(seed: int) -> None:
    """The same random schedule with the Admission of one process, step by step."""
    random = Random(seed)
    memory = SharedMemory.create(SharedAdmission.num_bytes(LIMIT))
    both: list[Admission] = [
        SharedAdmission(memory, limit=LIMIT, max_waiting_tokens=12),
        LocalAdmission(limit=LIMIT, max_waiting_tokens=12),
    ]
    ids, known, unsent = request_ids(0, start=0), list[int](), set[int]()

    def told(ask: Callable[[Admission], object]) -> object:
        answers = []
        for each in both:
            try:
                answers.append(ask(each))
            except Overloaded as error:
                answers.append(error.message)
        assert answers[0] == answers[1]
        return answers[0]

    for _ in range(300):
        move = random.choice(["take", "send", "on_run", "on_news", "on_end", "give_back"])
        if move == "take":
            new = [next(ids) for _ in range(random.randint(1, 3))]
            if told(lambda each, new=new: each.take(new)):  # type: ignore[misc]
                known += new
                unsent.update(new)
        elif known:
            one = random.choice(known)
            if move == "give_back":
                known.remove(one)
            if move == "send":
                follows = random.choice([None, None, one])
                request = make_request(one, (1,) * random.randint(1, 9), follows=follows)
                if one in unsent:  # none is sent twice
                    told(lambda each, request=request: each.send(request))  # type: ignore[misc]
                unsent.discard(one)
            else:
                told(lambda each, move=move, one=one: getattr(each, move)(one))  # type: ignore[misc]
        told(lambda each: (each.num_taken, each.num_waiting_tokens))
        for one in known:
            told(lambda each, one=one: each.position(one))  # type: ignore[misc]


def test_processes_that_take_places_at_once_never_have_too_many() -> None:
    """Four of them want both of two places. Who has them is counted beside the table."""
    code = """
import sys
from millstream.http_workers.numbering import request_ids
from millstream.http_workers.shared_admission import SharedAdmission
from millstream.shared_memory import SharedMemory

worker, *descriptors = map(int, sys.argv[1:])
memory = SharedMemory(descriptors[0], SharedAdmission.num_bytes(2))
places = SharedAdmission(memory, limit=2, max_waiting_tokens=None)
witness = SharedMemory(descriptors[1], 16)
count = witness.buffer.cast("q")
ids = request_ids(worker, start=0)
print("ready", flush=True)
sys.stdin.read()
num_taken = num_refused = 0
while num_taken < 2_000 or (num_refused == 0 and num_taken < 100_000):
    taken = [next(ids), next(ids)]
    if not places.take(taken):
        num_refused += 1
        continue
    num_taken += 1
    with witness.locked():
        count[0] += 2
        count[1] = max(count[1], count[0])
    with witness.locked():
        count[0] -= 2
    for one in taken:
        places.give_back(one)
print(num_refused)
"""
    memory = SharedMemory.create(SharedAdmission.num_bytes(2))
    witness = SharedMemory.create(16)
    descriptors = [memory.descriptor, witness.descriptor]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", code, str(worker), *map(str, descriptors)],
                    pass_fds=descriptors,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for worker in range(4)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        num_refused = [int(process.stdout.read()) for process in processes if process.stdout]
    assert sum(num_refused) > 0, "they never met"
    assert list(witness.buffer.cast("q")) == [0, 2]
    hub = SharedAdmission(memory, limit=2, max_waiting_tokens=None)
    assert hub.num_taken == 0
