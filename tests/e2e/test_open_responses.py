"""The cases of Open Responses' compliance suite in our words, and every answer held to schemas.

https://github.com/openresponses/openresponses, src/lib/compliance-tests.ts.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from .harness import RunningServer
from .official_schemas import check, check_event, check_response

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}
# The suite leaves it to a clever model to call the tool; ours is told to.
CALLS = {"tools": [WEATHER], "tool_choice": "required", "max_output_tokens": 200}


def message(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def post(server: RunningServer, **body: Any) -> httpx.Response:
    body = {"model": "any", "temperature": 0} | body
    return httpx.post(f"{server.url}/v1/responses", json=body, timeout=60)


def make(server: RunningServer, *said: dict[str, Any], **fields: Any) -> Any:
    response = post(server, input=list(said), **fields)
    assert response.status_code == 200, response.text
    check_response(response.json())
    return response.json()


def stream(server: RunningServer, *said: dict[str, Any], **fields: Any) -> list[Any]:
    response = post(server, input=list(said), stream=True, **fields)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    frames = response.text.split("\n\n")[:-1]
    events = []
    for frame in frames:
        fields_of = dict(line.split(": ", 1) for line in frame.split("\n"))
        event = json.loads(fields_of["data"])
        assert event["type"] == fields_of["event"]
        check_event(event)
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def get(server: RunningServer, path: str) -> Any:
    response = httpx.get(f"{server.url}{path}")
    assert response.status_code == 200, response.text
    return response.json()


def test_a_basic_response(demo_server: RunningServer) -> None:
    made = make(demo_server, message("user", "Say hello in exactly 3 words."))
    assert made["status"] == "completed"
    assert made["output"][0]["type"] == "message"


def test_a_stream(demo_server: RunningServer) -> None:
    events = stream(demo_server, message("user", "Count from 1 to 5."))
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["status"] == "completed"


def test_a_system_prompt(demo_server: RunningServer) -> None:
    pirate = message("system", "You are a pirate. Always respond in pirate speak.")
    made = make(demo_server, pirate, message("user", "Say hello."))
    assert made["status"] == "completed"
    assert made["output"]


def test_a_tool_is_called(demo_server: RunningServer) -> None:
    asked = message("user", "What's the weather like in San Francisco?")
    made = make(demo_server, asked, **CALLS)
    call = made["output"][0]
    assert (call["type"], call["name"]) == ("function_call", "get_weather")
    assert json.loads(call["arguments"]).keys() == {"location"}


def test_a_call_is_streamed(demo_server: RunningServer) -> None:
    asked = message("user", "What's the weather like in San Francisco?")
    events = stream(demo_server, asked, **CALLS)
    kinds = [event["type"] for event in events]
    assert "response.function_call_arguments.delta" in kinds
    assert "response.function_call_arguments.done" in kinds
    items = {event["type"]: event["item"]["type"] for event in events if "item" in event}
    assert items == {
        "response.output_item.added": "function_call",
        "response.output_item.done": "function_call",
    }


def test_an_image_is_refused_by_a_model_of_texts(demo_server: RunningServer) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    parts = [{"type": "input_text", "text": "What do you see?"}, image]
    response = post(demo_server, input=[message("user", parts)])
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"].startswith("input[0].content[1]")
    assert error["type"] == "invalid_request_error"


def test_several_turns(demo_server: RunningServer) -> None:
    made = make(
        demo_server,
        message("user", "My name is Alice."),
        message("assistant", "Hello Alice! Nice to meet you. How can I help you today?"),
        message("user", "What is my name?"),
    )
    assert made["status"] == "completed"
    assert "Alice" in made["output"][0]["content"][0]["text"]


# What the suite leaves out, held to the same schemas.


@pytest.mark.parametrize(
    "fields",
    [
        {"max_output_tokens": 3},
        {"instructions": "Be brief.", "metadata": {"a": "b"}, "store": False},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {"include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low"}},
        {"text": {"format": {"type": "json_object"}, "verbosity": "low"}, "max_output_tokens": 40},
        {
            "tools": [
                {"type": "custom", "name": "apply_patch"},
                {"type": "namespace", "name": "agents", "description": "d", "tools": [WEATHER]},
                {"type": "web_search"},
            ],
            "tool_choice": {"type": "custom", "name": "apply_patch"},
            "max_output_tokens": 60,
        },
        {"prompt_cache_key": "k", "safety_identifier": "s", "user": "u", "service_tier": "flex"},
    ],
    ids=lambda fields: "+".join(fields),
)
def test_what_is_asked_for_is_in_the_schemas(
    demo_server: RunningServer, fields: dict[str, Any]
) -> None:
    asked = message("user", "Count to 5")
    make(demo_server, asked, **fields)
    stream(demo_server, asked, **fields)


def test_what_is_kept_is_in_the_schemas(demo_server: RunningServer) -> None:
    created = httpx.post(
        f"{demo_server.url}/v1/conversations", json={"items": [message("user", "Hi")]}
    ).json()
    check("ConversationResource", created)
    path = f"/v1/conversations/{created['id']}"
    made = make(demo_server, message("user", "Count to 5"), conversation=created["id"])
    check_response(get(demo_server, f"/v1/responses/{made['id']}"))
    check("ResponseItemList", get(demo_server, f"/v1/responses/{made['id']}/input_items"))
    check("ConversationItemList", get(demo_server, f"{path}/items"))
    check("ConversationResource", get(demo_server, path))
    gone = httpx.delete(f"{demo_server.url}{path}").json()
    check("DeletedConversationResource", gone)
