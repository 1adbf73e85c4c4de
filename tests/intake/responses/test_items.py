"""What items come to: the messages that a chat template gets."""

from __future__ import annotations

import re
from typing import Any

import pytest

from millstream.errors import InvalidRequest
from millstream.intake.responses.sealed_text import (
    NotSealedHere,
    decode_reasoning,
    encode_reasoning,
)
from tests.intake.responses.bodies import ANSWERED, OUTPUT, chat_of, messages, parsed

USER = {"role": "user", "content": "Hi"}


def refused(**fields: Any) -> str | None:
    """The path that is named where a body is refused."""
    with pytest.raises(InvalidRequest) as refusal:
        chat_of(**fields)
    return refusal.value.param


def said(*items: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of items behind one of the user."""
    return messages(input=[USER, *items])[1:]


def test_a_text_is_one_message_of_the_user() -> None:
    request = parsed(input="Hi")
    (item,) = request.items
    assert re.fullmatch("msg_[0-9a-f]{32}", item.pop("id"))
    content = [{"type": "input_text", "text": "Hi"}]
    done = {"type": "message", "status": "completed"}
    assert item == done | {"role": "user", "content": content}
    assert messages(input="Hi") == [USER]


def test_items_are_as_sent_with_a_type_an_id_a_status_and_a_list_of_parts() -> None:
    sent = [USER, {"role": "assistant", "content": "Ho", "status": "completed"}, *ANSWERED, OUTPUT]
    items = parsed(input=sent).items
    assert items[0] == {
        "type": "message",
        "id": items[0]["id"],
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "Hi"}],
    }
    part = {"type": "output_text", "text": "Ho", "annotations": []}
    assert items[1]["content"] == [part]
    assert items[1]["status"] == "completed"
    assert items[2] == ANSWERED[0]
    assert items[4:] == [{"status": "completed", **one} for one in (ANSWERED[2], OUTPUT)]
    assert len({item["id"] for item in items}) == len(items)
    assert sent[0] == USER


@pytest.mark.parametrize("role", ["system", "developer"])
def test_texts_of_the_system_at_the_start_are_one_and_stay_where_they_are_later(role: str) -> None:
    first, late = {"role": role, "content": "A"}, {"role": role, "content": "B"}
    assert messages(instructions="Zero", input=[first, late, USER, late]) == [
        {"role": "system", "content": "Zero\n\nA\n\nB"},
        USER,
        {"role": "system", "content": "B"},
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Ho", "Ho"),
        ([], ""),
        ([{"type": "output_text", "text": "Ho"}], "Ho"),
        ([{"type": "refusal", "refusal": "No."}], "No."),
        (
            [{"type": "output_text", "text": "a"}, {"type": "text", "text": "b"}],
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        ),
    ],
)
def test_what_the_assistant_said(content: Any, expected: Any) -> None:
    assert said({"role": "assistant", "content": content}) == [
        {"role": "assistant", "content": expected}
    ]


@pytest.mark.parametrize(
    "keys",
    [
        {"content": [{"type": "reasoning_text", "text": "hm"}], "summary": []},
        {"content": None, "encrypted_content": encode_reasoning("hm"), "summary": []},
        {"encrypted_content": encode_reasoning("hm")},
        {"summary": [{"type": "summary_text", "text": "hm"}]},
        {
            "content": [{"type": "reasoning_text", "text": "hm"}],
            "encrypted_content": "of another server",
            "summary": [{"type": "summary_text", "text": "shorter"}],
        },
        {
            "encrypted_content": "of another server",
            "summary": [{"type": "summary_text", "text": "hm"}],
        },
    ],
)
def test_thoughts_are_part_of_the_message_that_they_led_to(keys: dict[str, Any]) -> None:
    assert said({"type": "reasoning", **keys}, {"role": "assistant", "content": "Ho"}) == [
        {"role": "assistant", "content": "Ho", "reasoning_content": "hm"}
    ]


def test_answers_with_the_outputs_of_their_calls_keep_their_order() -> None:
    again = {**ANSWERED[2], "call_id": "call_2"}
    parts = [{"type": "input_text", "text": "fine"}]
    last = {"type": "function_call_output", "call_id": "call_2", "output": parts}
    made = said(*ANSWERED, again, OUTPUT, last, {"role": "assistant", "content": "Done."})
    assert [message["role"] for message in made] == ["assistant", "tool", "tool", "assistant"]
    assert [call["id"] for call in made[0]["tool_calls"]] == ["call_1", "call_2"]
    assert made[1:3] == [
        {"role": "tool", "content": "code 0", "tool_call_id": "call_1"},
        {"role": "tool", "content": "fine", "tool_call_id": "call_2"},
    ]


def test_a_call_of_a_custom_tool_is_one_of_a_function_with_one_text() -> None:
    call = {"type": "custom_tool_call", "call_id": "c", "name": "apply", "input": 'a "b"\n'}
    output = {"type": "custom_tool_call_output", "call_id": "c", "output": "done"}
    function = {"name": "apply", "arguments": '{"input": "a \\"b\\"\\n"}'}
    assert said(call, output) == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "id": "c", "function": function}],
        },
        {"role": "tool", "content": "done", "tool_call_id": "c"},
    ]


def test_a_compaction_is_what_was_sealed() -> None:
    item = {"type": "compaction", "encrypted_content": encode_reasoning("So far: nothing.")}
    assert messages(input=[item, USER])[0] == {"role": "user", "content": "So far: nothing."}


def test_tools_that_a_conversation_has_come_by_are_offered() -> None:
    tool = {"type": "function", "name": "found", "parameters": {"type": "object"}}
    items = [
        {"type": "tool_search_call", "arguments": {"query": "x"}, "call_id": "s"},
        {"type": "tool_search_output", "call_id": "s", "tools": [tool]},
        {"type": "additional_tools", "role": "developer", "tools": [tool, {"type": "mcp"}]},
    ]
    made = chat_of(input=[USER, *items])
    assert [one["function"]["name"] for one in made.chat.offered_tools] == ["found"]
    assert [message.to_template() for message in made.chat.messages] == [USER]


def test_keys_that_programs_leave_are_taken() -> None:
    part = {"type": "output_text", "text": "Ho", "annotations": [], "logprobs": [], "parsed": 1}
    item = {"role": "assistant", "content": [part], "phase": "commentary", "status": None}
    assert said({**item, "id": "any-id"})[0]["content"] == "Ho"
    assert said({**ANSWERED[2], "parsed_arguments": {}, "caller": None})[0]["tool_calls"]


IMAGE = {"type": "input_image", "image_url": "data:"}
FILE = {"type": "input_file", "file_id": "f"}


@pytest.mark.parametrize(
    ("item", "path"),
    [
        (1, ""),
        ({}, ".type"),
        ({"type": "no_such"}, ".type"),
        ({"type": ["message"]}, ".type"),
        ({"type": "web_search_call", "id": "ws"}, ".type"),
        ({"type": "message"}, ".role"),
        ({"role": "robot", "content": "x"}, ".role"),
        ({"role": "user"}, ".content"),
        ({"role": "user", "content": []}, ".content"),
        ({"role": "user", "content": 3}, ".content"),
        ({"role": "user", "content": [3]}, ".content[0]"),
        ({"role": "user", "content": [{"type": "input_text"}]}, ".content[0].text"),
        ({"role": "user", "content": [{"type": "no", "text": "x"}]}, ".content[0].type"),
        ({"role": "user", "content": [IMAGE]}, ".content[0].type"),
        (
            {"role": "user", "content": [{"type": "input_text", "text": "x"}, FILE]},
            ".content[1].type",
        ),
        ({"role": "user", "content": "x", "no_such": 1}, ".no_such"),
        ({"role": "user", "content": "x", "id": ""}, ".id"),
        (
            {"role": "assistant", "content": [{"type": "refusal", "text": "x"}]},
            ".content[0].refusal",
        ),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, ".call_id"),
        ({"type": "function_call", "call_id": "c", "arguments": "{}"}, ".name"),
        ({"type": "function_call", "call_id": "c", "name": "f"}, ".arguments"),
        ({"type": "function_call_output", "call_id": "c"}, ".output"),
        ({"type": "function_call_output", "call_id": "c", "output": "x"}, ".call_id"),
        ({"type": "function_call_output", "call_id": "c", "output": [IMAGE]}, ".output[0].type"),
        ({"type": "custom_tool_call", "call_id": "c", "name": "f"}, ".input"),
        ({"type": "reasoning", "encrypted_content": "gAAA"}, ".encrypted_content"),
        ({"type": "reasoning", "summary": "x"}, ".summary"),
        ({"type": "compaction", "encrypted_content": "gAAA"}, ".encrypted_content"),
        ({"type": "item_reference"}, ".id"),
        ({"id": "msg_1"}, ""),
        ({"type": "additional_tools", "tools": [{"type": "no"}]}, ".tools[0].type"),
    ],
)
def test_what_is_wrong_is_named(item: Any, path: str) -> None:
    assert refused(input=[USER, item]) == f"input[1]{path}"


def test_what_no_text_model_reads_is_told() -> None:
    with pytest.raises(InvalidRequest, match="this model reads text, not input_image"):
        parsed(input=[{"role": "user", "content": [IMAGE]}])


@pytest.mark.parametrize("text", ["", "hm", "Ünï ⌘\n" * 99, "\ud800", "a" * 99_999])
def test_a_sealed_text_comes_back(text: str) -> None:
    sealed = encode_reasoning(text)
    assert re.fullmatch(r"ms1\.[A-Za-z0-9_=-]*", sealed)
    assert decode_reasoning(sealed) == text


def test_a_damaged_text_is_known_and_a_bomb_does_not_go_off() -> None:
    sealed = encode_reasoning("So it was thought.")
    for damaged in ("", "ms1.", "ms1.#", sealed[:-9], sealed + "AAAA", sealed[4:], "ms1.AAAA"):
        with pytest.raises(NotSealedHere):
            decode_reasoning(damaged)
    with pytest.raises(NotSealedHere, match="damaged"):
        decode_reasoning(encode_reasoning("a" * (33 << 20)))
