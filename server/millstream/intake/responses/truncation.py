"""Items that may be left out where a conversation has become too long (`truncation: auto`).

Rules: the oldest go first, a turn at a time: a message of the user with all that follows up to the
next. Of the last turn whole rounds may go, that is an answer with the outputs of its calls, but not
the last. Texts of the system at the start stay, and the last message of the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from millstream.intake.responses.items import Item

_OUTPUTS = ("function_call_output", "custom_tool_call_output")


def num_turns(items: Sequence[Item]) -> int:
    """The turns and rounds that may be left out."""
    return len(_droppable(items))


def without_oldest(items: Sequence[Item], count: int) -> list[int]:
    """The places of the items that stay when so many turns or rounds are left out, or all that
    may be. An output whose call is left out goes with it."""
    gone = {place for places in _droppable(items)[:count] for place in places}
    calls = {items[place].get("call_id") for place in gone if not _is_output(items[place])}
    return [
        place
        for place, item in enumerate(items)
        if place not in gone and not (_is_output(item) and item["call_id"] in calls)
    ]


def _droppable(items: Sequence[Item]) -> list[list[int]]:
    """The places of each turn and round that may go, the oldest first."""
    start = next((place for place, item in enumerate(items) if not _is_system(item)), len(items))
    users = [place for place in range(start, len(items)) if _is_user(items[place])]
    last = users[-1] if users else start - 1
    begins = [place for place in sorted({start, *users}) if place < last]
    turns = [list(range(begin, end)) for begin, end in pairwise([*begins, last])]
    return turns + _rounds(items, last + 1)[:-1]


def _rounds(items: Sequence[Item], start: int) -> list[list[int]]:
    """Answers with the outputs of their calls: a new one begins where outputs have ended."""
    rounds: list[list[int]] = []
    has_output = True
    for place in range(start, len(items)):
        if has_output and not _is_output(items[place]):
            rounds.append([])
            has_output = False
        has_output = has_output or _is_output(items[place])
        if not rounds:
            rounds.append([])
        rounds[-1].append(place)
    return rounds


def _is_system(item: Item) -> bool:
    return bool(item["type"] == "message" and item["role"] in ("system", "developer"))


def _is_user(item: Item) -> bool:
    return bool(item["type"] == "message" and item["role"] == "user")


def _is_output(item: Item) -> bool:
    return bool(item["type"] in _OUTPUTS)
