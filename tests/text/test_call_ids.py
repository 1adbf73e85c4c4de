"""Calls and results that came without an id get one where a template cannot do without."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.text.message_shapes import MessageShape, put_into_shape

ABC, DEF = "abcabcabc", "defdefdef"


def history(calls: list[str | None], results: list[str | None]) -> list[dict[str, Any]]:
    def named(key: str, name: str | None) -> dict[str, Any]:
        return {} if name is None else {key: name}

    function = {"name": "f", "arguments": "{}"}
    called = [{"type": "function", "function": function} | named("id", name) for name in calls]
    told = [{"role": "tool", "content": "1"} | named("tool_call_id", name) for name in results]
    return [{"role": "assistant", "tool_calls": called}, *told]


def names(messages: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    said, *told = messages
    return [call["id"] for call in said["tool_calls"]], [one["tool_call_id"] for one in told]


@pytest.mark.parametrize(
    ("calls", "results", "owners"),
    [
        ([None], [None], [0]),
        ([None, None, None], [None, None, None], [0, 1, 2]),
        ([ABC, DEF], [None, None], [0, 1]),
        ([None, None], [ABC, DEF], [0, 1]),
        ([ABC, None], [None, ABC], [1, 0]),
        ([ABC, DEF], [DEF, None], [1, 0]),
        (["", ""], [None, ""], [0, 1]),
    ],
)
def test_a_result_belongs_to_its_call(
    calls: list[str | None], results: list[str | None], owners: list[int]
) -> None:
    called, told = names(put_into_shape(history(calls, results), MessageShape(short_ids=True)))
    assert told == [called[owner] for owner in owners]
    assert len(set(called)) == len(called)
    assert all(len(name) == 9 and name.isalnum() for name in called)
    for sent, name in zip(calls, called, strict=True):
        assert not sent or name == sent


def test_ids_differ_between_turns_and_for_results_without_a_call() -> None:
    turn = history([None], [None, None])
    shaped = put_into_shape([*turn, *turn], MessageShape(short_ids=True))
    (first,), told = names(shaped[:3])
    (second,), _ = names(shaped[3:])
    assert len({first, second, told[1]}) == 3


def test_other_templates_get_the_ids_that_were_sent() -> None:
    said, told = put_into_shape(history([None], [None]), MessageShape())
    assert "id" not in said["tool_calls"][0]
    assert "tool_call_id" not in told
