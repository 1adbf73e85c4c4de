"""Tool calls and reasoning of the demo model, as the official clients read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import (
    ChatCompletionInputFunctionName,
    ChatCompletionInputToolChoiceClass,
    InferenceClient,
)
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
def test_a_call_without_its_plugin_is_of_the_offered_tool(
    stream: bool, demo_server: RunningServer
) -> None:
    """What Semantic Kernel sends: the demo model leaves out the plugin when it calls."""
    function = WEATHER["function"] | {"name": "weather-get_weather"}
    tools = [{"type": "function", "function": function}]
    with openai_client(demo_server.url) as client:
        message, reason = ask(client, stream=stream, said=OSLO, tools=tools, tool_choice="auto")
    assert reason == "tool_calls"
    (call,) = message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == (
        "weather-get_weather",
        '{"city": "Oslo"}',
    )


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


BOOKING: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "book-trip",
        "parameters": {
            "type": "object",
            "properties": {
                "to": {"type": "string", "minLength": 1, "maxLength": 12},
                "days": {"type": "integer", "minimum": 1, "maximum": 30},
                "class": {"enum": ["first", "second"]},
                "notes": {"type": "array", "items": {"type": "string", "maxLength": 5}}
                | {"maxItems": 2},
            },
            "required": ["to", "days"],
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "now"}}
CITY = {"type": "string", "maxLength": 9}
SHORT_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": CITY}, "required": ["city"]},
    },
}
# A model of noise: that a call is right is the grammar's doing. It ends its turn at random only.
NOISE: dict[str, Any] = {
    "max_tokens": 1500,
    "extra_body": {"stop_token_ids": [2], "chat_template_kwargs": {"enable_thinking": False}},
}


def assert_right(name: str, arguments: str) -> None:
    given = json.loads(arguments)
    if name == "now":
        assert given == {}
    elif name == "get_weather":
        assert set(given) == {"city"}
        assert len(given["city"]) <= 9
    else:
        assert name == "book-trip"
        assert {"to", "days"} <= set(given) <= {"to", "days", "class", "notes"}
        assert 1 <= len(given["to"]) <= 12
        assert type(given["days"]) is int
        assert 1 <= given["days"] <= 30
        assert given.get("class", "first") in ("first", "second")
        assert len(given.get("notes", [])) <= 2
        assert all(len(note) <= 5 for note in given.get("notes", []))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("choice", "names", "reason"),
    [
        ("required", {"book-trip", "now", "get_weather"}, "tool_calls"),
        ({"type": "function", "function": {"name": "book-trip"}}, {"book-trip"}, "stop"),
    ],
)
def test_a_call_that_is_demanded_always_comes(
    choice: Any,
    names: set[str],
    reason: str,
    seed: int,
    stream: bool,
    endless_server: RunningServer,
) -> None:
    with openai_client(endless_server.url) as client:
        message, ended = ask(
            client,
            stream=stream,
            said=messages("Hello"),
            tools=[BOOKING, CLOCK, SHORT_WEATHER],
            tool_choice=choice,
            parallel_tool_calls=False,
            temperature=1.5,
            seed=seed,
            **NOISE,
        )
    assert ended == reason
    assert not message.content
    (call,) = message.tool_calls or []
    assert call.type == "function"
    assert call.function.name in names
    assert_right(call.function.name, call.function.arguments)


@pytest.mark.parametrize("stream", [False, True])
def test_a_format_and_tools_make_a_call_or_the_format(
    stream: bool, endless_server: RunningServer
) -> None:
    """As OpenAI's Agents SDK sends them; a model of noise does both."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    schema["additionalProperties"] = False
    named = {"name": "n", "schema": schema, "strict": True}
    ends = set()
    with openai_client(endless_server.url) as client:
        for seed in range(12):
            message, ended = ask(
                client,
                stream=stream,
                said=messages("Hello"),
                tools=[BOOKING, CLOCK, SHORT_WEATHER],
                response_format={"type": "json_schema", "json_schema": named},
                parallel_tool_calls=False,
                temperature=2,
                seed=seed,
                **NOISE,
            )
            ends.add(ended)
            if ended == "tool_calls":
                (call,) = message.tool_calls or []
                assert call.type == "function"
                assert_right(call.function.name, call.function.arguments)
                assert not message.content
            else:
                assert not message.tool_calls
                assert set(json.loads(message.content or "")) == {"ok"}
    assert ends <= {"stop", "tool_calls"}


@pytest.mark.parametrize(
    "parser",
    [
        pytest.param(name, marks=pytest.mark.server("--tool-call-parser", name))
        for name in ("qwen3-coder", "mistral")
    ],
)
@pytest.mark.usefixtures("parser")
def test_calls_come_in_the_model_s_own_format(own_server: RunningServer) -> None:
    fields: dict[str, Any] = NOISE["extra_body"] | {"temperature": 1.5, "max_tokens": 1500}
    fields |= {"tools": [BOOKING, CLOCK, SHORT_WEATHER], "stop_token_ids": [2]}
    seen = 0
    for seed in range(3):
        response = own_server.chat("Hello", tool_choice="required", seed=seed, n=2, **fields)
        for choice in response.json()["choices"]:
            calls = choice["message"]["tool_calls"]
            *complete, last = calls
            seen += len(complete)
            for call in complete:
                assert_right(**call["function"])
            if choice["finish_reason"] == "tool_calls":
                assert_right(**last["function"])
            assert choice["message"]["content"] is None
    assert seen


def test_the_demo_model_calls_what_it_must(demo_server: RunningServer) -> None:
    """It would rather greet; asked for the weather, it knows the city."""
    with openai_client(demo_server.url) as client:
        for said in (messages("Hello"), OSLO):
            message, reason = ask(
                client, stream=False, said=said, tools=[WEATHER, CLOCK], tool_choice="required"
            )
            assert reason == "tool_calls"
            assert message.tool_calls
        assert message.tool_calls[0].type == "function"
        assert message.tool_calls[0].function.arguments == '{"city": "Oslo"}'
        plain, _ = ask(client, stream=False, said=messages("Hello"), tools=[WEATHER])
    assert plain.tool_calls is None
    assert plain.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_strict_tool_is_called_as_it_was(stream: bool, demo_server: RunningServer) -> None:
    strict: Any = {"type": "function", "function": WEATHER["function"] | {"strict": True}}
    with openai_client(demo_server.url) as client:
        for said in (OSLO, messages("Hello")):
            free, free_reason = ask(client, stream=stream, said=said, tools=[WEATHER])
            held, held_reason = ask(client, stream=stream, said=said, tools=[strict])
            assert (held.content, held_reason) == (free.content, free_reason)
            calls = [
                [(one.type == "function" and one.function.arguments) for one in m.tool_calls or []]
                for m in (free, held)
            ]
            assert calls[0] == calls[1] == (['{"city": "Oslo"}'] if said is OSLO else [])


def test_a_forced_call_comes_after_the_thoughts(demo_server: RunningServer) -> None:
    with openai_client(demo_server.url) as client:
        message, reason = ask(
            client,
            stream=True,
            said=messages("What is 27 + 58?"),
            tools=[WEATHER],
            tool_choice="required",
            extra_body=THINKING,
        )
    assert reason == "tool_calls"
    assert message.tool_calls
    assert "think>" not in (message.model_extra or {})["reasoning_content"]


def test_a_marker_in_an_answer_of_a_format_is_text(demo_server: RunningServer) -> None:
    text = "a <think> b </think>"
    with openai_client(demo_server.url) as client:
        for fields in (THINKING, {"reasoning_effort": "high"}, {"reasoning_effort": "none"}):
            extra = fields | {"guided_choice": [text, f"<tool_call>{text}"]}
            message, _ = ask(
                client, stream=True, said=messages("What is 27 + 58?"), extra_body=extra
            )
            assert message.content is not None
            assert message.content.endswith(text)
            said = (message.model_extra or {}).get("reasoning_content")
            assert bool(said) == (fields != {"reasoning_effort": "none"})


def test_the_hub_client_demands_a_call(demo_server: RunningServer) -> None:
    with InferenceClient(base_url=demo_server.url) as client:
        for choice in (
            "required",
            ChatCompletionInputToolChoiceClass(
                function=ChatCompletionInputFunctionName(name="get_weather")
            ),
        ):
            answer = client.chat_completion(
                messages("Hello"),
                tools=[WEATHER],
                tool_choice=choice,  # type: ignore[arg-type]
            )
            (call,) = answer.choices[0].message.tool_calls or []
            assert call.function.name == "get_weather"


@pytest.mark.server("--reasoning-parser", "think", "--tool-call-parser", "none")
def test_a_parser_is_named_by_the_operator(own_server: RunningServer) -> None:
    refused = own_server.chat("Hello", tools=[WEATHER])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "tools"


def test_a_parser_that_is_not_there_is_refused_at_start(tmp_path: Path) -> None:
    flags = ["--tool-call-parser", "nonsense"]
    server = RunningServer(flags, tmp_path / "server.log", is_awaited=False, is_warm=True)
    try:
        assert server.wait_exit() == 1
    finally:
        server.kill()
    assert "no tool-call parser 'nonsense'" in server.log()
    assert "hermes" in server.log()
