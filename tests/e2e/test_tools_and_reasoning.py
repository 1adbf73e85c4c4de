"""Tool calls and reasoning of the demo model, as the official clients read them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from openai import OpenAI
from openai.types.chat import ChatCompletionMessage

from .harness import RunningServer
from .sdk import openai_client
from .wire import messages

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city"}},
            "required": ["city"],
        },
    },
}
OSLO = messages("What is the weather in Oslo?")
RESULT = json.dumps({"temperature": 21, "condition": "sunny"})
THINKING: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": True}}

# What the demo model says in these tests is what it was trained to say.


def ask(
    client: OpenAI, *, stream: bool, said: list[Any], **fields: Any
) -> tuple[ChatCompletionMessage, str]:
    """The message and its finish reason; of a stream, as the SDK puts it together."""
    if not stream:
        choice = client.chat.completions.create(model="any", messages=said, **fields).choices[0]
        return choice.message, choice.finish_reason
    with client.chat.completions.stream(model="any", messages=said, **fields) as events:
        final = events.get_final_completion().choices[0]
    return final.message, final.finish_reason


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_told(stream: bool, demo_server: RunningServer) -> None:
    with openai_client(demo_server.url) as client:
        message, reason = ask(client, stream=stream, said=OSLO, tools=[WEATHER])
        assert reason == "tool_calls"
        assert not message.content
        assert message.tool_calls is not None
        (call,) = message.tool_calls
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == {"city": "Oslo"}
        echoed = message.model_dump(include={"role", "content", "tool_calls"})
        if stream:  # the SDK adds what it parsed, and the API is sent what it made
            for one in echoed["tool_calls"]:
                one["function"].pop("parsed_arguments", None)
        result = {"role": "tool", "tool_call_id": call.id, "content": RESULT}
        said = [*OSLO, echoed, result]
        message, reason = ask(client, stream=stream, said=said, tools=[WEATHER])
    assert reason == "stop"
    assert message.content == "The weather in Oslo is sunny, 21 degrees."
    assert message.tool_calls is None


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_are_apart_from_the_answer(stream: bool, demo_server: RunningServer) -> None:
    said = messages("What is 27 + 58?")
    with openai_client(demo_server.url) as client:
        message, _ = ask(client, stream=stream, said=said, extra_body=THINKING)
        plain, _ = ask(client, stream=stream, said=said)
    assert message.content == plain.content == "27 + 58 = 85."
    extra = message.model_extra or {}
    assert "85" in extra["reasoning_content"]
    assert "think>" not in extra["reasoning_content"]
    assert extra["reasoning"] == extra["reasoning_content"]
    assert "reasoning" not in (plain.model_extra or {})


def test_the_hub_client_reads_the_call(demo_server: RunningServer) -> None:
    with InferenceClient(base_url=demo_server.url) as client:
        answer = client.chat_completion(OSLO, tools=[WEATHER], tool_choice="auto")
        chunks = list(client.chat_completion(OSLO, tools=[WEATHER], stream=True))
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.function.name == "get_weather"
    assert json.loads(str(call.function.arguments)) == {"city": "Oslo"}
    pieces = [one for c in chunks for one in c.choices[0].delta.tool_calls or []]
    assert pieces[0].function.name == "get_weather"
    assert "".join(piece.function.arguments for piece in pieces) == '{"city": "Oslo"}'
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_parser_is_named_by_the_operator(start_server: Any) -> None:
    server = start_server("--reasoning-parser", "think", "--tool-call-parser", "none")
    refused = server.chat("Hello", tools=[WEATHER])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "tools"


def test_a_parser_that_is_not_there_is_refused_at_start() -> None:
    command = [sys.executable, "-m", "millstream", "serve", "--port", "0"]
    done = subprocess.run(
        [*command, "--tool-call-parser", "nonsense"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "no tool-call parser 'nonsense'" in done.stderr
    assert "hermes" in done.stderr
