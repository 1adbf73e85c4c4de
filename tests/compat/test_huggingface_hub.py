"""InferenceClient and AsyncInferenceClient of huggingface_hub, pointed at the server."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, InferenceTimeoutError

from tests.e2e.harness import RunningServer

ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
    },
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


def user(content: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


@pytest.fixture
def client(scripted_url: str) -> InferenceClient:
    return InferenceClient(base_url=scripted_url, token=os.environ["OPENAI_API_KEY"])


@pytest.fixture
def demo(demo_url: str) -> InferenceClient:
    return InferenceClient(base_url=demo_url)


@pytest.mark.parametrize("suffix", ["", "/v1", "/v1/"])
def test_whole_answer(demo_url: str, suffix: str) -> None:
    answer = InferenceClient(base_url=demo_url + suffix).chat_completion(user("Count to 5"))
    assert answer.choices[0].message.content == "1\n2\n3\n4\n5"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 5
    assert answer.model == "millstream-demo"


def test_model_as_address(demo_url: str) -> None:
    answer = InferenceClient(model=demo_url).chat_completion(user("Count to 5"))
    assert answer.choices[0].message.content == "1\n2\n3\n4\n5"


def test_stream(demo: InferenceClient) -> None:
    chunks = list(demo.chat_completion(user("Count to 5"), stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "1\n2\n3\n4\n5"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_stream_with_usage(demo: InferenceClient) -> None:
    chunks = list(
        demo.chat_completion(
            user("Count to 5"), stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens > 5


def test_openai_spelling(demo: InferenceClient) -> None:
    answer = demo.chat.completions.create(model="any", messages=user("Count to 5"), max_tokens=100)
    assert answer.choices[0].message.content == "1\n2\n3\n4\n5"


def test_every_field_of_the_client(demo: InferenceClient) -> None:
    answer = demo.chat_completion(
        user("Count to 5"),
        frequency_penalty=0.0,
        logit_bias=None,
        logprobs=True,
        max_tokens=6,
        n=2,
        presence_penalty=0.0,
        seed=1,
        stop=["9"],
        temperature=0.5,
        top_logprobs=2,
        top_p=0.9,
        extra_body={"min_p": 0.01},
    )
    assert len(answer.choices) == 2
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2


def test_tool_call(client: InferenceClient) -> None:
    answer = client.chat_completion(user("Please add 2 and 40."), tools=[ADD], tool_choice="auto")
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "add"
    assert json.loads(call.function.arguments) == {"a": 2, "b": 40}


def test_tool_call_in_stream(client: InferenceClient) -> None:
    chunks = client.chat_completion(user("Please add 2 and 40."), tools=[ADD], stream=True)
    calls = [call for c in chunks for call in c.choices[0].delta.tool_calls or []]
    assert calls[0].function.name == "add"
    assert json.loads("".join(c.function.arguments or "" for c in calls)) == {"a": 2, "b": 40}


def test_tool_choice_is_enforced(demo: InferenceClient) -> None:
    answer = demo.chat_completion(
        user("Hello!"), tools=[ADD], tool_choice="required", max_tokens=200
    )
    assert answer.choices[0].message.tool_calls[0].function.name == "add"


def test_tool_loop(client: InferenceClient) -> None:
    messages = user("Please add 2 and 40.")
    asking = client.chat_completion(messages, tools=[ADD])
    messages.append(dict(asking.choices[0].message))
    call = asking.choices[0].message.tool_calls[0]
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "42"})
    answer = client.chat_completion(messages, tools=[ADD])
    assert answer.choices[0].message.content == "The result is 42."


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_object", "value": PERSON},
        {"type": "json", "value": PERSON},
        {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}},
        {"type": "json_object"},
    ],
    ids=["tgi", "tgi-json", "openai", "any"],
)
def test_response_format(client: InferenceClient, response_format: dict[str, Any]) -> None:
    answer = client.chat_completion(user("Who is Bob? JSON."), response_format=response_format)
    assert json.loads(answer.choices[0].message.content) == {"name": "Bob", "age": 4}


def test_regex_format(demo: InferenceClient) -> None:
    answer = demo.chat_completion(
        user("Hello"), response_format={"type": "regex", "value": "[0-9]{4}"}
    )
    assert len(answer.choices[0].message.content) == 4
    assert answer.choices[0].message.content.isdigit()


async def test_async(demo_url: str) -> None:
    async with AsyncInferenceClient(base_url=demo_url) as client:
        answer = await client.chat_completion(user("Count to 5"))
        stream = await client.chat_completion(user("Count to 5"), stream=True)
        text = "".join([c.choices[0].delta.content or "" async for c in stream])
    assert text == answer.choices[0].message.content == "1\n2\n3\n4\n5"


# While the engine is frozen nothing ends by itself: what is gone was cancelled.


async def test_leaving_an_async_stream(demo_server: RunningServer) -> None:
    async with AsyncInferenceClient(base_url=demo_server.url) as client:
        stream = await client.chat_completion(
            user("Count to 90"), stream=True, extra_body={"ignore_eos": True}
        )
        await anext(stream)
        with demo_server.paused_engine():
            await client.close()
            demo_server.wait_open(0)


def test_leaving_a_stream(demo_server: RunningServer) -> None:
    with InferenceClient(base_url=demo_server.url) as client:
        stream = client.chat_completion(
            user("Count to 90"), stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        with demo_server.paused_engine():
            client.close()
            demo_server.wait_open(0)


def test_errors_say_what_is_wrong(demo: InferenceClient) -> None:
    with pytest.raises(BadRequestError, match="top_p"):
        demo.chat_completion(user("Hi"), top_p=2.0)
    with pytest.raises(HfHubHTTPError, match="top_p"):
        list(demo.chat_completion(user("Hi"), top_p=2.0, stream=True))


async def test_async_errors_say_what_is_wrong(demo_url: str) -> None:
    async with AsyncInferenceClient(base_url=demo_url) as client:
        with pytest.raises(HfHubHTTPError, match="top_p"):
            await client.chat_completion(user("Hi"), top_p=2.0)


def test_a_wrong_key(scripted_url: str) -> None:
    client = InferenceClient(base_url=scripted_url, token="wrong")
    with pytest.raises(HfHubHTTPError) as caught:
        client.chat_completion(user("Hi"))
    assert caught.value.response.status_code == 401


def test_timeout(demo_server: RunningServer) -> None:
    client = InferenceClient(base_url=demo_server.url, timeout=0.2)
    with demo_server.paused_engine():
        with pytest.raises(InferenceTimeoutError):
            client.chat_completion(user("Hi"))
        demo_server.wait_open(0)
