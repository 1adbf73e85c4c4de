"""At which place a request waits: from its sending until it runs or ends, however."""

from __future__ import annotations

from millstream.errors import MillstreamError
from millstream.runtime.queue_places import QueuePlaces
from tests.runtime.conftest import EngineFactory, GatedRunner, begin, until


def test_places_are_those_of_who_still_waits() -> None:
    places = QueuePlaces()
    for request_id in (5, 3, 9):
        places.enter(request_id)
    assert [places.position(one) for one in (5, 3, 9, 4)] == [1, 2, 3, None]
    places.leave(3)
    places.leave(3)
    places.leave(4)
    assert [places.position(one) for one in (5, 3, 9)] == [1, None, 2]
    places.enter(3)
    assert places.position(3) == 3


async def test_requests_move_up_until_they_run(run_engine_client: EngineFactory) -> None:
    runner = GatedRunner()
    async with run_engine_client(lambda: runner, max_running=1, max_waiting=4) as client:
        running, second, third, fourth = (begin(client, max_tokens=50) for _ in range(4))
        place = client.streams.queue_position
        runner.allow(1)
        await until(lambda: place(running) is None)
        assert [place(one) for one in (second, third, fourth)] == [1, 2, 3]
        second.close()
        assert [place(one) for one in (second, third, fourth)] == [None, 1, 2]
        running.close()
        runner.allow(2)
        await until(lambda: place(third) is None)
        assert place(fourth) == 1
        client.streams.fail_all(MillstreamError("gone"))
        assert place(fourth) is None
        runner.allow(200)
