"""Ids for calls and results that came without one, for templates that cannot do without.

Rule: ids that were sent stay. A result that names no call belongs to the first call before it that
no other result names, as clients that leave out ids send results in the order of the calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from millstream.text.message_moves import Message


def with_call_ids(messages: Sequence[Message]) -> list[Message]:
    """The messages, with an id for every call and every result."""
    shaped = list(messages)
    for place, message in enumerate(messages):
        if message.get("tool_calls"):
            end = place + 1
            while end < len(messages) and messages[end].get("role") == "tool":
                end += 1
            calls, results = _paired(message["tool_calls"], messages[place + 1 : end], place=place)
            shaped[place] = message | {"tool_calls": calls}
            shaped[place + 1 : end] = results
    return shaped


def _paired(
    calls: Sequence[Message], results: Sequence[Message], *, place: int
) -> tuple[list[Message], list[Message]]:
    """The calls of a message and their results. place: of the message."""
    called = [call.get("id") for call in calls]
    named = [result.get("tool_call_id") for result in results]
    free_calls = [index for index, name in enumerate(called) if not name or name not in named]
    free_results = [index for index, name in enumerate(named) if not name or name not in called]
    for call, result in zip(free_calls, free_results, strict=False):
        called[call] = called[call] or named[result] or _by_position(place, call)
        named[result] = named[result] or called[call]
    return (
        [
            call | {"id": name or _by_position(place, index)}
            for index, (call, name) in enumerate(zip(calls, called, strict=True))
        ],
        [
            result | {"tool_call_id": name or _by_position(place, len(calls) + index)}
            for index, (result, name) in enumerate(zip(results, named, strict=True))
        ],
    )


def _by_position(message: int, call: int) -> str:
    return f"call_{message}_{call}"
