"""Events: what was logged is read from any place on, in order."""

from __future__ import annotations

import asyncio

from millstream.store.store import Store
from tests.store.things import batch, finished, response


async def test_events_are_read_from_any_place(store: Store) -> None:
    await store.begin(response("r1"), [])
    await asyncio.gather(*(store.log("r1", batch(n, n + 4)) for n in range(0, 50, 5)))
    all_of_them = [batch(n, n + 4) for n in range(0, 50, 5)]
    assert await store.events("r1", after=-1, limit_bytes=10**6) == all_of_them
    assert await store.events("r1", after=4, limit_bytes=10**6) == all_of_them[1:]
    assert await store.events("r1", after=12, limit_bytes=10**6) == all_of_them[2:]
    assert await store.events("r1", after=49, limit_bytes=10**6) == []


async def test_a_part_of_the_events_is_as_long_as_wanted(store: Store) -> None:
    await store.begin(response("r1"), [])
    await asyncio.gather(*(store.log("r1", batch(n, n)) for n in range(100)))
    length = len(batch(10, 10).frames)
    part = await store.events("r1", after=9, limit_bytes=40 * length)
    assert [one.first for one in part] == list(range(10, 50))
    assert len(await store.events("r1", after=9, limit_bytes=1)) == 1


async def test_events_of_many_answers_do_not_mix(store: Store) -> None:
    names = [f"r{number}" for number in range(20)]
    await asyncio.gather(*(store.begin(response(name), []) for name in names))
    logged = [store.log(name, batch(n, n)) for n in range(10) for name in names]
    await asyncio.gather(*logged)
    for name in names:
        assert await store.events(name, after=-1, limit_bytes=10**6) == [
            batch(n, n) for n in range(10)
        ]


async def test_what_is_logged_right_before_the_end_is_kept(store: Store) -> None:
    await store.begin(response("r1"), [])
    logged = store.log("r1", batch(0, 3))
    await asyncio.gather(logged, finished(store, "r1", last_events=batch(4, 5)))
    assert await store.events("r1", after=-1, limit_bytes=10**6) == [batch(0, 3), batch(4, 5)]


async def test_events_that_nobody_may_read_again_are_not_kept(store: Store) -> None:
    await store.begin(response("r1"), [])
    logged = store.log("r1", batch(0, 3))
    await asyncio.gather(logged, finished(store, "r1", keeps_events=False))
    assert await store.events("r1", after=-1, limit_bytes=10**6) == []


async def test_a_batch_that_fails_hurts_no_other(store: Store) -> None:
    await asyncio.gather(store.begin(response("r1"), []), store.begin(response("r2"), []))
    await store.log("r1", batch(0, 3))
    twice, other = store.log("r1", batch(0, 3)), store.log("r2", batch(0, 3))
    results = await asyncio.gather(twice, other, return_exceptions=True)
    assert type(results[0]).__name__ == "StoreFailed"
    assert results[1] is None
    assert await store.events("r2", after=-1, limit_bytes=10**6) == [batch(0, 3)]
