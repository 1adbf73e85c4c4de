"""The official OpenAI SDK for Python: every way it offers to ask for a chat completion."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI, pydantic_function_tool
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel

from tests.e2e.harness import RunningServer

MODEL = "millstream-demo"


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str
    days: int


class Person(BaseModel):
    name: str
    age: int
    friends: list[str]


WEATHER = pydantic_function_tool(GetWeather)
JSON_TOOL: dict[str, Any] = {
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


def user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


@pytest.fixture
def client(scripted_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{scripted_url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def demo(demo_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{demo_url}/v1", max_retries=0) as client:
        yield client


# Chat


def test_create(demo: OpenAI) -> None:
    answer = demo.chat.completions.create(model=MODEL, messages=user("Count to 5"), temperature=0)
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert answer.id
    assert answer.created
    [choice] = answer.choices
    assert choice.message.content == "1\n2\n3\n4\n5"
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream_is_create_in_pieces(demo: OpenAI) -> None:
    fields: dict[str, Any] = {"model": MODEL, "messages": user("Count to 20"), "temperature": 0}
    whole = demo.chat.completions.create(**fields)
    chunks = list(
        demo.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage.model_copy(
        update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details}
    )


def test_stream_helper(demo: OpenAI) -> None:
    with demo.chat.completions.stream(model=MODEL, messages=user("Count to 5")) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    kinds = [event.type for event in events]
    assert kinds[0] == "chunk"
    assert kinds.count("content.done") == 1
    deltas = [event.delta for event in events if event.type == "content.delta"]
    assert "".join(deltas) == final.choices[0].message.content == "1\n2\n3\n4\n5"


def test_n_and_seed(demo: OpenAI) -> None:
    answers = [
        demo.chat.completions.create(
            model=MODEL, messages=user("Tell me a fact"), n=2, seed=7, temperature=1.5
        )
        for _ in range(2)
    ]
    texts = [[choice.message.content for choice in answer.choices] for answer in answers]
    assert texts[0] == texts[1]
    assert [choice.index for choice in answers[0].choices] == [0, 1]


def test_stop_and_length(demo: OpenAI) -> None:
    stopped = demo.chat.completions.create(model=MODEL, messages=user("Count to 9"), stop=["5"])
    assert stopped.choices[0].message.content == "1\n2\n3\n4\n"
    cut = demo.chat.completions.create(
        model=MODEL, messages=user("Count to 9"), max_completion_tokens=3
    )
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 3


def test_logprobs(demo: OpenAI) -> None:
    answer = demo.chat.completions.create(
        model=MODEL, messages=user("Count to 5"), logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == answer.choices[0].message.content
    assert all(len(entry.top_logprobs) == 3 for entry in logprobs.content)


def test_logprobs_in_stream_helper(demo: OpenAI) -> None:
    with demo.chat.completions.stream(
        model=MODEL, messages=user("Count to 5"), logprobs=True
    ) as stream:
        done = [event for event in stream if event.type == "logprobs.content.done"]
    assert len(done) == 1
    assert "".join(entry.token for entry in done[0].content) == "1\n2\n3\n4\n5"


def test_kinds_of_messages(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": "Hi", "name": "ann"},
            {"role": "assistant", "content": [{"type": "text", "text": "Hello"}], "refusal": None},
            *user([{"type": "text", "text": "Repeat"}, {"type": "text", "text": " after me: sea"}]),
        ],
    )
    assert answer.choices[0].message.content == "sea"


def test_reasoning(client: OpenAI) -> None:
    asked = user("Think aloud about seven")
    message = client.chat.completions.create(model=MODEL, messages=asked).choices[0].message
    assert message.content == "It is a prime."
    assert getattr(message, "reasoning_content", None) == "Seven has no divisors."


def test_reasoning_in_stream_helper(client: OpenAI) -> None:
    asked = user("Think aloud about seven")
    with client.chat.completions.stream(model=MODEL, messages=asked) as stream:
        deltas = [event.chunk.choices[0].delta for event in stream if event.type == "chunk"]
        message = stream.get_final_completion().choices[0].message
    reasoning = "".join(getattr(delta, "reasoning_content", "") or "" for delta in deltas)
    assert reasoning == "Seven has no divisors."
    assert message.content == "It is a prime."


# Tools


def test_tool_call(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=user("Please add 2 and 40."), tools=[JSON_TOOL]
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    assert answer.choices[0].message.tool_calls is not None
    [call] = answer.choices[0].message.tool_calls
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert call.function.name == "add"
    assert json.loads(call.function.arguments) == {"a": 2, "b": 40}


def test_tool_calls_in_stream(client: OpenAI) -> None:
    chunks = client.chat.completions.create(
        model=MODEL, messages=user("Add 1 and 2, also 3 and 4."), tools=[JSON_TOOL], stream=True
    )
    names, arguments = {}, {0: "", 1: ""}
    for chunk in chunks:
        for call in chunk.choices[0].delta.tool_calls or []:
            if call.id:
                names[call.index] = call.function.name
            arguments[call.index] += call.function.arguments or ""
    assert names == {0: "add", 1: "add"}
    assert [json.loads(text) for text in arguments.values()] == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


def test_parsed_tool_call(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=user("Weather in Oslo for 3 days?"), tools=[WEATHER]
    )
    assert answer.choices[0].message.tool_calls is not None
    [call] = answer.choices[0].message.tool_calls
    assert call.function.parsed_arguments == GetWeather(city="Oslo", days=3)


def test_tool_calls_in_stream_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=user("Weather in Oslo for 3 days?"), tools=[WEATHER]
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    deltas = [e for e in events if e.type == "tool_calls.function.arguments.delta"]
    [done] = [e for e in events if e.type == "tool_calls.function.arguments.done"]
    assert len(deltas) > 2
    assert "".join(e.arguments_delta for e in deltas) == done.arguments
    assert done.parsed_arguments == GetWeather(city="Oslo", days=3)
    assert final.choices[0].message.tool_calls[0].function.parsed_arguments == done.parsed_arguments


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "add"}}], ids=["any", "named"]
)
def test_tool_choice_is_enforced(demo: OpenAI, choice: Any) -> None:
    answer = demo.chat.completions.create(
        model=MODEL, messages=user("Hello!"), tools=[JSON_TOOL], tool_choice=choice, max_tokens=200
    )
    assert answer.choices[0].message.tool_calls, answer
    arguments = json.loads(answer.choices[0].message.tool_calls[0].function.arguments)
    assert arguments.keys() == {"a", "b"}


def test_tool_choice_none(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=user("Repeat after me: sea"), tools=[JSON_TOOL], tool_choice="none"
    )
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content == "sea"


def test_one_call_at_a_time(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=user("Add 1 and 2, also 3 and 4."),
        tools=[JSON_TOOL],
        parallel_tool_calls=False,
    )
    assert len(answer.choices[0].message.tool_calls or []) == 1


def test_tool_loop(client: OpenAI) -> None:
    messages: list[Any] = user("Please add 2 and 40.")
    asking = client.chat.completions.create(model=MODEL, messages=messages, tools=[JSON_TOOL])
    messages.append(asking.choices[0].message)  # as the documentation has it: the object itself
    for call in asking.choices[0].message.tool_calls or []:
        total = sum(json.loads(call.function.arguments).values())
        messages.append({"role": "tool", "tool_call_id": call.id, "content": str(total)})
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[JSON_TOOL])
    assert answer.choices[0].message.content == "The result is 42."


def test_parsed_messages_may_be_echoed(client: OpenAI) -> None:
    messages: list[Any] = user("Weather in Oslo for 3 days?")
    asking = client.chat.completions.parse(model=MODEL, messages=messages, tools=[WEATHER])
    messages.append(asking.choices[0].message)
    messages.append({"role": "tool", "tool_call_id": "1", "content": "7"})
    answer = client.chat.completions.create(model=MODEL, messages=messages)
    assert answer.choices[0].message.content == "The result is 7."
    typed = client.chat.completions.parse(
        model=MODEL, messages=user("Describe Ann in JSON."), response_format=Person
    )
    messages = [
        *user("Hi"),
        typed.choices[0].message.model_dump(),
        *user("Repeat after me: sea"),
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages)
    assert answer.choices[0].message.content == "sea"


# Structured output


def test_parse(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=user("Describe Ann in JSON."), response_format=Person
    )
    assert answer.choices[0].message.parsed == Person(name="Ann", age=30, friends=["Bob", "Cid"])


def test_parse_in_stream_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=user("Describe Ann in JSON."), response_format=Person
    ) as stream:
        snapshots = [event.parsed for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert {"name": "Ann"} in snapshots
    assert final.choices[0].message.parsed == Person(name="Ann", age=30, friends=["Bob", "Cid"])


def test_json_object(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=user("Describe Ann in JSON."),
        response_format={"type": "json_object"},
    )
    assert json.loads(answer.choices[0].message.content or "")["name"] == "Ann"


def test_an_answer_cut_off_is_not_parsed(client: OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=MODEL,
            messages=user("Describe Ann in JSON."),
            response_format=Person,
            max_tokens=4,
        )


# Async, raw responses, ending early


async def test_async(demo_url: str) -> None:
    async with AsyncOpenAI(base_url=f"{demo_url}/v1", max_retries=0) as client:

        async def stream(top: int) -> str:
            chunks = await client.chat.completions.create(
                model=MODEL, messages=user(f"Count to {top}"), stream=True, temperature=0
            )
            return "".join([c.choices[0].delta.content or "" async for c in chunks])

        texts = await asyncio.gather(*(stream(top) for top in range(3, 9)))
    assert texts == ["\n".join(str(n) for n in range(1, top + 1)) for top in range(3, 9)]


async def test_async_stream_helper(scripted_url: str) -> None:
    async with (
        AsyncOpenAI(base_url=f"{scripted_url}/v1", max_retries=0) as client,
        client.chat.completions.stream(
            model=MODEL, messages=user("Weather in Oslo for 3 days?"), tools=[WEATHER]
        ) as stream,
    ):
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    assert final.choices[0].finish_reason == "tool_calls"


def test_raw_response(demo: OpenAI) -> None:
    raw = demo.chat.completions.with_raw_response.create(model=MODEL, messages=user("Count to 5"))
    assert raw.status_code == 200
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().choices[0].message.content == "1\n2\n3\n4\n5"


def test_request_id(demo: OpenAI) -> None:
    answer = demo.chat.completions.create(model=MODEL, messages=user("Count to 5"))
    assert answer._request_id


def test_streaming_response(demo: OpenAI) -> None:
    with demo.chat.completions.with_streaming_response.create(
        model=MODEL, messages=user("Count to 5"), stream=True
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


# While the engine is frozen nothing ends by itself: what is gone was cancelled.


def test_leaving_a_stream(demo: OpenAI, demo_server: RunningServer) -> None:
    stream = demo.chat.completions.create(
        model=MODEL, messages=user("Count to 90"), stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    with demo_server.paused_engine():
        stream.close()
        demo_server.wait_open(0)


def test_timeout(demo: OpenAI, demo_server: RunningServer) -> None:
    hasty = demo.with_options(timeout=0.2)
    with demo_server.paused_engine():
        with pytest.raises(openai.APITimeoutError):
            hasty.chat.completions.create(model=MODEL, messages=user("Hi"))
        demo_server.wait_open(0)


# Errors


def test_an_unknown_field_is_named(demo: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        demo.chat.completions.create(
            model=MODEL, messages=user("Hi"), extra_body={"tempreature": 1}
        )
    assert caught.value.param == "tempreature"
    assert caught.value.code == "unknown_parameter"
    assert caught.value.type == "invalid_request_error"
    assert "tempreature" in caught.value.message


def test_a_wrong_value_is_named(demo: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        demo.chat.completions.create(model=MODEL, messages=user("Hi"), temperature=-1)
    assert caught.value.param == "temperature"


def test_too_long_a_prompt(demo: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        demo.chat.completions.create(model=MODEL, messages=user("word " * 5000))
    assert caught.value.code == "context_length_exceeded"


def test_a_wrong_key(scripted_url: str) -> None:
    with (
        OpenAI(base_url=f"{scripted_url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.models.list()
    assert caught.value.code == "invalid_api_key"


def test_errors_before_a_stream(demo: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        demo.chat.completions.create(model=MODEL, messages=[], stream=True)


def test_images_are_refused(demo: OpenAI) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    with pytest.raises(openai.BadRequestError) as caught:
        demo.chat.completions.create(model=MODEL, messages=user(parts))
    assert caught.value.param == "messages[0].content[0].type"


# Other endpoints


def test_models(demo: OpenAI) -> None:
    assert [model.id for model in demo.models.list()] == [MODEL]


def test_one_model(demo: OpenAI) -> None:
    assert demo.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        demo.models.retrieve("nothing-like-that")


def test_completions(demo: OpenAI) -> None:
    answer = demo.completions.create(model=MODEL, prompt="1\n2\n3\n", max_tokens=8, temperature=0)
    assert answer.object == "text_completion"
    assert answer.choices[0].finish_reason in ("stop", "length")
    chunks = demo.completions.create(
        model=MODEL, prompt="1\n2\n3\n", max_tokens=8, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text


def test_embeddings_are_not_there(demo: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        demo.embeddings.create(model=MODEL, input="Hi")
    assert "/v1/embeddings" in caught.value.message
    assert caught.value.code
