"""Conversations that are too long, and refusals in the words of the body that was sent."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.openai.responses.conftest import Desk


def said(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": text}


async def test_a_conversation_that_is_too_long_loses_its_oldest_turns(desk: Desk) -> None:
    length = desk.context.engine.info.max_context // 4
    turns = [
        item
        for number in range(6)
        for item in (said("user", f"{number}" * length), said("assistant", "fine"))
    ]
    items = [said("developer", "Be kind."), *turns, said("user", "And now?")]
    refused = await desk.post(input=items)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert refused.json()["error"]["param"] == "input"
    desk.say("Fine")
    response = await desk.make(input=items, truncation="auto")
    assert response["truncation"] == "auto"
    shown = [message["content"] for message in desk.shown]
    assert shown[0] == "Be kind."
    assert shown[-1] == "And now?"
    kept = shown[1:-1]
    assert kept == [item["content"] for item in turns[-len(kept) :]]
    assert 2 <= len(kept) < len(turns)


async def test_what_cannot_be_shortened_enough_is_refused(desk: Desk) -> None:
    text = "x" * desk.context.engine.info.max_context * 2
    items = [said("user", "a"), said("assistant", "b"), said("user", text)]
    refused = await desk.post(input=items, truncation="auto")
    assert refused.json()["error"]["code"] == "context_length_exceeded"


BAD = {"type": "grammar", "syntax": "regex", "definition": "[a-"}
CUSTOM = {"type": "custom", "name": "apply", "format": BAD}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"tools": [{"type": "web_search"}, CUSTOM]}, "tools[1].format.definition"),
        (
            {
                "tools": [
                    {
                        "type": "namespace",
                        "name": "n",
                        "description": "",
                        "tools": [
                            {"type": "function", "name": "f", "parameters": {"type": "array"}}
                        ],
                    }
                ],
                "tool_choice": "required",
            },
            "tools[0].tools[0].parameters",
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "no"}}}},
            "text.format.schema",
        ),
        ({"chat_template_kwargs": {"no_such": 1}}, "chat_template_kwargs"),
    ],
)
async def test_what_only_the_model_can_refuse_is_named_as_it_was_sent(
    desk: Desk, fields: dict[str, Any], path: str
) -> None:
    refused = await desk.post(**fields)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == path
    assert refused.json()["error"]["message"].startswith(path)


async def test_the_prompt_of_a_later_turn_begins_with_that_of_an_earlier_one(desk: Desk) -> None:
    """Whatever the client keeps of a turn: the answer's items come back as one message."""
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    desk.say('<think>\nhm\n</think>\nSo <tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>')
    first = [said("developer", "Be kind."), said("user", "Do it.")]
    response = await desk.make(input=first, tools=[tool])
    shown = desk.shown
    call = response["output"][-1]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "done"}
    desk.say("Done.")
    await desk.make(input=[*first, *response["output"], output], tools=[tool])
    answer = desk.shown[2]
    assert answer["reasoning_content"] == "hm"
    assert answer["content"] == "So"
    assert answer["tool_calls"][0]["function"]["name"] == "f"
    assert desk.shown[:2] == shown
