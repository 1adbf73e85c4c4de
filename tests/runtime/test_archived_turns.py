"""An engine with an archive: conversations go on after a restart, and others never wait for it."""

from __future__ import annotations

import asyncio

from millstream.core.request import TokenEvent
from millstream.runtime.stream import TokenStream
from tests.fake_archive import FakeArchive
from tests.fakes import FakeRunner, LaunchingFake, alone, fake_info
from tests.runtime.conftest import EngineFactory, begin, request_for, until

HISTORY = tuple(range(1, 41)) * 2


class ArchivingRunner(LaunchingFake):
    """It begins with what the archive of another has kept, if one is given."""

    def __init__(self, before: FakeArchive | None = None, *, plans_ahead: bool = False) -> None:
        super().__init__(fake_info(num_blocks=128), plans_ahead=plans_ahead)
        self.kept = FakeArchive(self)
        self.archive = self.kept
        if before is not None:
            self.kept.kept = before.kept


async def events_of(stream: TokenStream) -> list[TokenEvent]:
    """All events of a stream, which is closed."""
    events = [event async for some in stream for event in some]
    stream.close()
    return events


async def first_turn(
    run: EngineFactory, *, plans_ahead: bool
) -> tuple[FakeArchive, tuple[int, ...]]:
    runner = ArchivingRunner(plans_ahead=plans_ahead)
    async with run(lambda: runner) as client:
        events = await events_of(begin(client, HISTORY, max_tokens=9))
        await until(lambda: (archive := client.statistics.archive) and archive.num_blocks == 22)
    assert not runner.kept.is_open, "it is closed with the engine"
    return runner.kept, HISTORY + tuple(token for event in events for token in event.token_ids)


async def test_a_conversation_goes_on_after_a_restart(run_engine_client: EngineFactory) -> None:
    for plans_ahead in (False, True):
        kept, history = await first_turn(run_engine_client, plans_ahead=plans_ahead)
        runner = ArchivingRunner(kept, plans_ahead=plans_ahead)
        async with run_engine_client(lambda: runner) as client:  # noqa: B023
            streams = [begin(client, (*history, i), max_tokens=9) for i in range(6)]
            expected = [alone(request_for(s, (*history, i), 9)) for i, s in enumerate(streams)]
            answers = await asyncio.gather(*map(events_of, streams))
        assert [[t for e in events for t in e.token_ids] for events in answers] == expected
        assert {event.num_cached for events in answers for event in events} == {88}
        assert runner.kept.num_restored >= 22


async def test_others_run_and_cancels_are_heard_while_a_disk_is_slow(
    run_engine_client: EngineFactory,
) -> None:
    kept, history = await first_turn(run_engine_client, plans_ahead=False)
    runner = ArchivingRunner(kept)
    runner.kept.take_arrived = list  # type: ignore[method-assign]
    async with run_engine_client(lambda: runner) as client:
        waiting = begin(client, history)
        await until(lambda: runner.kept.num_fetches == 1)
        assert await events_of(begin(client, (3, 4), max_tokens=5))
        waiting.close()
        await until(lambda: runner.kept.num_fetches == 0)


async def test_an_engine_without_an_archive_says_so(run_engine_client: EngineFactory) -> None:
    async with run_engine_client(lambda: FakeRunner(fake_info())) as client:
        assert await events_of(begin(client))
        assert client.statistics.archive is None
