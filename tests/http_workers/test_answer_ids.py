"""The worker's number in the ids of answers."""

from __future__ import annotations

import re

import pytest

from millstream.api.peers.answer_ids import named_worker, new_answer_id
from millstream.api.peers.peers import Peers


@pytest.mark.parametrize(("prefix", "num_digits"), [("resp_", 48), ("chatcmpl-", 32)])
def test_an_id_says_which_worker_made_it(prefix: str, num_digits: int) -> None:
    for worker in (0, 1, 15, 16, 255):
        made = new_answer_id(prefix, num_digits, worker=worker)
        assert re.fullmatch(f"{prefix}[0-9a-f]{{{num_digits}}}", made)
        assert named_worker(made) == worker


def test_all_but_the_number_is_random() -> None:
    made = {new_answer_id("cmpl-", 32, worker=3) for _ in range(1000)}
    assert len(made) == 1000
    for place in range(len("cmpl-"), len("cmpl-") + 30):
        assert len({one[place] for one in made}) == 16
    assert {one[-2:] for one in made} == {"03"}


def test_the_only_worker_makes_all_digits_random() -> None:
    made = {new_answer_id("cmpl-", 32, worker=None)[-2:] for _ in range(1000)}
    assert len(made) > 200


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "01",
        "0" * 32,
        "chatcmpl-" + "0" * 31,
        "chatcmpl-" + "0" * 33,
        "chatcmpl-" + "G" * 32,
        "chatcmpl-" + "A" * 32,
        "chatcmpl-" + "0" * 32 + "\n",
        "my own/" + "0" * 32,
        "7f" * 24,
    ],
)
def test_what_is_no_id_of_an_answer_names_no_worker(identifier: str) -> None:
    assert named_worker(identifier) is None


def test_only_another_worker_that_there_is_makes_an_answer_elsewhere() -> None:
    peers = Peers(1, ["a", "b", "c"])
    made = [peers.other_maker(new_answer_id("resp_", 48, worker=n)) for n in range(5)]
    assert made == [0, None, 2, None, None]
    assert peers.others == [0, 2]
