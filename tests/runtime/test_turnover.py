"""How long refused clients are told to wait: simulated houses, no clocks."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import pytest

from millstream.runtime.turnover import MAX_WAIT, Turnover


class House:
    """Places, of which some run at a time, and clients that keep to what they are told."""

    def __init__(self, *, places: int, running: int, seconds: float) -> None:
        self.now = 0.0
        self.turnover = Turnover(
            places=places, clock=lambda: self.now, chance=random.Random(1).random
        )
        self.places, self.running, self.seconds = places, running, seconds
        self.open = 0
        self.free_at = [0.0] * running

    def serve(self, *, clients: int, tries: int) -> Counter[str]:
        """How many of the clients, who all come at once, were served and refused for good."""
        # (time, order, kind, tries left)
        events = [(self.now, number, "ask", tries) for number in range(clients)]
        order, outcomes = clients, Counter[str]()
        while events:
            self.now, _, kind, left = heapq.heappop(events)
            order += 1
            if kind == "end":
                self.open -= 1
                self.turnover.on_end()
            elif self.open < self.places:
                self.open += 1
                outcomes["served"] += 1
                begin = max(heapq.heappop(self.free_at), self.now)
                heapq.heappush(self.free_at, begin + self.seconds)
                heapq.heappush(events, (begin + self.seconds, order, "end", 0))
            else:
                wait = self.turnover.wait()
                if left > 1:
                    heapq.heappush(events, (self.now + wait, order, "ask", left - 1))
                else:
                    outcomes["refused"] += 1
        return outcomes


@pytest.mark.parametrize("seconds", [0.3, 2.8, 6.0], ids=["fast", "as guessed", "slow"])
def test_two_retries_are_enough_for_a_crowd(seconds: float) -> None:
    house = House(places=160, running=32, seconds=seconds)
    outcomes = house.serve(clients=300, tries=3)
    assert outcomes["served"] >= 285


def test_the_rate_of_the_last_time_is_remembered() -> None:
    house = House(places=10, running=1, seconds=5.0)
    house.serve(clients=20, tries=3)
    house.now += 1000
    for _ in range(10):
        house.turnover.on_end()  # in an empty house this says nothing
    assert 4 <= house.turnover.wait() <= 8


def test_turns_are_one_after_the_other_and_not_too_far_off() -> None:
    turnover = Turnover(places=15, clock=lambda: 100.0, chance=lambda: 0.0)
    assert [turnover.wait() for _ in range(5)] == [1, 2, 3, 4, 5]
    assert turnover.wait(4) == 9
    assert {turnover.wait() for _ in range(1000)} == {*range(10, MAX_WAIT + 1)}


def test_those_of_one_moment_do_not_come_back_in_one() -> None:
    chance = random.Random(3).random
    waits = [Turnover(places=1, clock=lambda: 0.0, chance=chance).wait() for _ in range(20)]
    assert len(set(waits)) > 2
    assert min(waits) >= 15
