"""When an engine that has ended gets a successor, and when no more."""

from __future__ import annotations

from millstream.runtime.restarts import MAX_DELAY, STEADY_SECONDS, Restarts


def test_pauses_double_up_to_the_largest() -> None:
    restarts = Restarts(None)
    delays = [restarts.delay(0.0) for _ in range(8)]
    assert delays == [0.0, 1.0, 3.0, 7.0, 15.0, MAX_DELAY, MAX_DELAY, MAX_DELAY]


def test_there_are_so_many_successors_and_no_more() -> None:
    restarts = Restarts(2)
    assert [restarts.delay(5.0) for _ in range(3)] == [0.0, 1.0, None]
    assert Restarts(0).delay(0.0) is None


def test_an_engine_that_served_long_makes_the_others_forgotten() -> None:
    restarts = Restarts(1)
    for _ in range(3):
        assert restarts.delay(STEADY_SECONDS) == 0.0
    assert restarts.delay(1.0) is None
