"""What of a conversation is left out where it is too long."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.errors import InvalidRequest
from millstream.intake.responses.chat_of_response import chat_of_response
from millstream.intake.responses.truncation import num_turns, without_oldest
from tests.intake.responses.bodies import messages, parsed


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": text}


def call(number: int) -> dict[str, Any]:
    name = {"name": "f", "arguments": "{}"}
    return {"type": "function_call", "call_id": f"call_{number}", **name}


def output(number: int) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": f"call_{number}", "output": str(number)}


SYSTEM = {"type": "message", "role": "developer", "content": "Be kind."}
TALK = [SYSTEM, user("1"), said("one"), user("2"), call(1), output(1), said("two"), user("3")]
ROUNDS = [user("1"), call(1), call(2), output(1), output(2), said("."), call(3), output(3)]


@pytest.mark.parametrize(
    ("count", "kept"), [(0, range(8)), (1, [0, 3, 4, 5, 6, 7]), (2, [0, 7]), (9, [0, 7])]
)
def test_the_oldest_turns_go_first(count: int, kept: Any) -> None:
    assert without_oldest(TALK, count) == list(kept)
    assert num_turns(TALK) == 2


@pytest.mark.parametrize(("count", "kept"), [(0, range(8)), (1, [0, 5, 6, 7]), (9, [0, 5, 6, 7])])
def test_rounds_of_the_last_turn_go_but_not_the_last(count: int, kept: Any) -> None:
    assert without_oldest(ROUNDS, count) == list(kept)
    assert num_turns(ROUNDS) == 1


def test_an_output_goes_with_its_call() -> None:
    late = [user("1"), call(1), user("2"), output(1)]
    assert without_oldest(late, 1) == [2]


@pytest.mark.parametrize("items", [[], [SYSTEM], [SYSTEM, user("1")], [said("1")], [output(1)]])
def test_what_there_is_no_older_of_stays(items: list[dict[str, Any]]) -> None:
    assert num_turns(items) == 0
    assert without_oldest(items, 3) == list(range(len(items)))


def test_the_chat_is_that_of_the_items_that_stay() -> None:
    request = parsed(input=TALK[3:], previous_response_id="resp_1", instructions="Be brief.")
    context = parsed(input=TALK[:3]).items
    assert num_turns([*context, *request.items]) == 2
    made = chat_of_response(request, request.items, context, left_out=2)
    texts = [message.text for message in made.chat.messages]
    assert texts == ["Be brief.\n\nBe kind.", "3"]
    refusal = made.in_words_of_responses(
        InvalidRequest("messages[1].content: no", param="messages[1].content")
    )
    assert refusal.param == "input[4].content"
    assert messages(input=TALK)[-1] == {"role": "user", "content": "3"}
