"""Two processes read one file of keys, each at its own moment, and share the accounts."""

from __future__ import annotations

import logging
import os
from hashlib import sha256
from pathlib import Path

import pytest

from millstream.api.metrics.key_families import key_families
from millstream.errors import RateLimited, StartupError
from millstream.quotas.key_ring import KeyRing
from millstream.quotas.quota import Quota
from millstream.quotas.shared_ledger import SharedLedger
from millstream.quotas.shared_table import SharedTable, shared_table_bytes
from millstream.shared_memory import SharedMemory
from tests.quotas.conftest import Clock, life

NUM_WORKERS = 2


class Workers:
    """The keys as each of two processes knows them."""

    def __init__(self, table: SharedTable, file: Path, clock: Clock) -> None:
        self.file = file
        self.ledgers = [
            SharedLedger(table, worker=worker, clock=clock) for worker in range(NUM_WORKERS)
        ]
        self.write("one")
        self.rings = [KeyRing(file=file, ledger=ledger) for ledger in self.ledgers]

    def write(self, *keys: str, **limits: int) -> None:
        """Gives the file these keys, all with the same limits."""
        lines = [f"{name} = {value}" for name, value in limits.items()]
        parts = [["[[keys]]", f'label = "{key}"', f'key = "{key}"', *lines] for key in keys]
        new = self.file.with_suffix(".new")
        new.write_text("\n".join(line for part in parts for line in part))
        new.chmod(0o600)
        os.replace(new, self.file)

    async def read(self, worker: int) -> None:
        """Has one of them read the file."""
        for _ in range(2):
            await self.rings[worker].look()

    def quota(self, worker: int, key: str = "one") -> Quota:
        return self.rings[worker].quota(sha256(key.encode()).hexdigest())

    def remaining(self) -> list[int | None]:
        """Requests that are left of a minute's, as each of them says."""
        allowances = [self.quota(worker).requests for worker in range(NUM_WORKERS)]
        return [None if one is None else one.remaining for one in allowances]


@pytest.fixture
def workers(table: SharedTable, tmp_path: Path, clock: Clock) -> Workers:
    return Workers(table, tmp_path / "keys.toml", clock)


async def test_limits_that_are_read_at_different_moments_change_once(workers: Workers) -> None:
    workers.write("one", requests_per_minute=10)
    await workers.read(0)
    for worker in (0, 1, 0):
        workers.quota(worker).admit(1, param="n")
    assert workers.remaining() == [7, 7]
    await workers.read(1)
    assert workers.remaining() == [7, 7]
    workers.write("one", requests_per_minute=20)
    await workers.read(1)
    assert workers.remaining() == [17, 17]
    workers.quota(0).admit(1, param="n")
    await workers.read(0)
    assert workers.remaining() == [16, 16]
    workers.write("one", requests_per_minute=4)
    await workers.read(0)
    with pytest.raises(RateLimited):
        workers.quota(1).admit(1, param="n")
    workers.write("one")
    await workers.read(1)
    assert workers.remaining() == [None, None]


async def test_a_key_that_only_one_has_read_is_the_same_for_the_next(workers: Workers) -> None:
    workers.write("two", "one", max_concurrent_requests=2)
    await workers.read(1)
    workers.quota(1, "two").admit(1, param="n")
    await workers.read(0)
    workers.quota(0, "two").admit(1, param="n")
    with pytest.raises(RateLimited):
        workers.quota(1, "two").admit(1, param="n")
    assert workers.quota(0, "one").counts.num_open == 0


def test_each_process_tells_what_all_have_counted(workers: Workers) -> None:
    (meter,) = workers.quota(0).admit(1, param="n")
    workers.quota(1).admit(1, param="n")
    meter.end(life(prompt=7, generated=5))
    for ring in workers.rings:
        said = {
            (sample.name, *sample.labels.values()): sample.value
            for family in key_families(ring.labelled)
            for sample in family.samples
        }
        assert said["millstream_key_requests_total", "one"] == 2
        assert said["millstream_key_requests_open", "one"] == 1
        assert said["millstream_key_tokens_total", "one", "generated"] == 5


async def test_a_key_that_comes_back_has_not_regained_what_it_used(workers: Workers) -> None:
    workers.write("one", requests_per_minute=10)
    await workers.read(0)
    workers.quota(0).admit(1, param="n")
    workers.write("other")
    await workers.read(0)
    await workers.read(1)
    workers.write("one", requests_per_minute=10)
    await workers.read(1)
    await workers.read(0)
    assert workers.remaining() == [9, 9]


def test_a_process_that_takes_anothers_place_finds_what_was_used(
    workers: Workers, table: SharedTable
) -> None:
    workers.write("one", requests_per_minute=10, max_concurrent_requests=9)
    workers.rings[0] = KeyRing(file=workers.file, ledger=workers.ledgers[0])
    workers.quota(0).admit(1, param="n")
    workers.quota(1).admit(2, param="n")
    table.clear_worker(1)
    workers.rings[1] = KeyRing(file=workers.file, ledger=workers.ledgers[1])
    assert workers.remaining() == [8, 8]
    assert workers.quota(1).counts.num_open == 1


async def test_no_room_for_new_keys_leaves_those_that_were_known(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    bytes_of_three = shared_table_bytes(1, NUM_WORKERS) * 3 // 65_536 + 8
    memory = SharedMemory.create(bytes_of_three)
    workers = Workers(SharedTable(memory, num_workers=NUM_WORKERS), tmp_path / "keys.toml", clock)
    workers.write("two", "three", "four")
    with caplog.at_level(logging.ERROR):
        await workers.read(0)
    assert "keys that are new: 3, and there is room for 2 until" in caplog.text
    assert "the keys that were known stay" in caplog.text
    assert [quota.label for quota in workers.rings[0].labelled] == ["one"]
    workers.write("two", "three")
    await workers.read(0)
    assert [quota.label for quota in workers.rings[0].labelled] == ["two", "three"]
    workers.write("one", "two", "three")
    await workers.read(1)
    workers.quota(0, "three").admit(1, param="n")
    assert [workers.quota(1, key).counts.num_open for key in ("one", "two", "three")] == [0, 0, 1]
    workers.write("five")
    with pytest.raises(StartupError, match="keys that are new: 1, and there is room for 0"):
        KeyRing(file=workers.file, ledger=workers.ledgers[1])


def test_there_is_room_for_many_more_keys_than_there_are() -> None:
    memory = SharedMemory.create(shared_table_bytes(10_000, NUM_WORKERS))
    table = SharedTable(memory, num_workers=NUM_WORKERS)
    digests = [number.to_bytes(32) for number in range(160_000)]
    assert table.rows(digests) == list(range(160_000))
    with pytest.raises(StartupError):
        table.rows([bytes([1]) * 32])
