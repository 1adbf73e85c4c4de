"""The official OpenAI SDK for Python: responses, and conversations that the server keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI, pydantic_function_tool
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel

MODEL = "millstream-demo"
COUNTED = "1\n2\n3\n4\n5"
ADD: Any = {
    "type": "function",
    "name": "add",
    "description": "Adds two numbers.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}


class Person(BaseModel):
    name: str
    age: int
    friends: list[str]


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str
    days: int


@pytest.fixture
def client(scripted_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{scripted_url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def demo(demo_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{demo_url}/v1", max_retries=0) as client:
        yield client


# Answers


def test_create(demo: OpenAI) -> None:
    response = demo.responses.create(model=MODEL, input="Count to 5", temperature=0)
    assert response.object == "response"
    assert response.status == "completed"
    assert response.output_text == COUNTED
    assert response.model == MODEL
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_stream_is_create_in_pieces(demo: OpenAI) -> None:
    # So long that it cannot come in one piece.
    events = list(demo.responses.create(model=MODEL, input="Count to 20", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    counted = "\n".join(map(str, range(1, 21)))
    assert len(deltas) > 1
    assert "".join(deltas) == counted
    last = events[-1]
    assert last.type == "response.completed"
    assert demo.responses.retrieve(last.response.id).output_text == counted


def test_stream_helper(demo: OpenAI) -> None:
    with demo.responses.stream(model=MODEL, input="Count to 5") as stream:
        text = "".join(
            event.delta for event in stream if event.type == "response.output_text.delta"
        )
        assert text == stream.get_final_response().output_text == COUNTED


async def test_async_stream(demo_url: str) -> None:
    async with AsyncOpenAI(base_url=f"{demo_url}/v1", max_retries=0) as client:
        stream = await client.responses.create(model=MODEL, input="Count to 5", stream=True)
        text = [event.delta async for event in stream if event.type == "response.output_text.delta"]
    assert "".join(text) == COUNTED


def test_leaving_a_stream_ends_the_answer(demo: OpenAI) -> None:
    with demo.responses.create(model=MODEL, input="Count to 1000", store=False, stream=True) as it:
        next(iter(it))


def test_structured_output_parsed(client: OpenAI) -> None:
    response = client.responses.parse(
        model=MODEL, input="Describe Ann in JSON", text_format=Person, temperature=0
    )
    assert response.output_parsed == Person(name="Ann", age=30, friends=["Bob", "Cid"])


def test_structured_output_streamed(client: OpenAI) -> None:
    with client.responses.stream(
        model=MODEL, input="Describe Ann in JSON", text_format=Person
    ) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_parsed == Person(
            name="Ann", age=30, friends=["Bob", "Cid"]
        )


def test_a_tool_from_a_model_is_parsed(client: OpenAI) -> None:
    tool: Any = {"type": "function", **pydantic_function_tool(GetWeather)["function"]}
    response = client.responses.parse(model=MODEL, input="Weather in Oslo for 3 days", tools=[tool])
    (call,) = response.output
    assert call.type == "function_call"
    assert call.parsed_arguments == {"city": "Oslo", "days": 3}


@pytest.mark.parametrize("is_stored", [True, False])
def test_tool_loop(client: OpenAI, is_stored: bool) -> None:
    """With the server's memory, and with the history sent again."""
    history: list[Any] = [{"role": "user", "content": "Please add 2 and 40."}]
    first = client.responses.create(model=MODEL, input=history, tools=[ADD], store=is_stored)
    (call,) = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "42"}
    assert json.loads(call.arguments) == {"a": 2, "b": 40}
    second = client.responses.create(
        model=MODEL,
        input=[result] if is_stored else [*history, *first.output, result],
        previous_response_id=first.id if is_stored else None,
        tools=[ADD],
        store=is_stored,
    )
    assert second.output_text == "The result is 42."


def test_calls_are_streamed(client: OpenAI) -> None:
    with client.responses.stream(
        model=MODEL, input="Add 1 and 2, also 3 and 4.", tools=[ADD]
    ) as stream:
        kinds = [event.type for event in stream]
        calls = stream.get_final_response().output
    assert kinds.count("response.function_call_arguments.done") == 2
    assert [json.loads(call.arguments) for call in calls] == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "add"}])
def test_tool_choice_is_enforced(demo: OpenAI, choice: Any) -> None:
    response = demo.responses.create(
        model=MODEL, input="Hello!", tools=[ADD], tool_choice=choice, max_output_tokens=200
    )
    assert response.output[0].type == "function_call"


def test_reasoning(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="Think aloud about seven")
    thought, _ = response.output
    assert thought.content[0].text.strip() == "Seven has no divisors."
    assert response.output_text == "It is a prime."
    assert response.usage.output_tokens_details.reasoning_tokens > 3


def test_reasoning_comes_back_encrypted_for_those_who_keep_nothing(client: OpenAI) -> None:
    first = client.responses.create(
        model=MODEL,
        input="Think aloud about seven",
        store=False,
        include=["reasoning.encrypted_content"],
    )
    assert first.output[0].encrypted_content
    again = client.responses.create(
        model=MODEL,
        input=[*first.output, {"role": "user", "content": "Repeat after me: sea"}],
        store=False,
    )
    assert again.output_text == "sea"


def test_an_answer_that_is_cut(demo: OpenAI) -> None:
    response = demo.responses.create(model=MODEL, input="Count to 50", max_output_tokens=16)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"


def test_log_probabilities(demo: OpenAI) -> None:
    response = demo.responses.create(
        model=MODEL,
        input="Count to 5",
        include=["message.output_text.logprobs"],
        top_logprobs=2,
    )
    logprobs = response.output[0].content[0].logprobs
    assert "".join(each.token for each in logprobs) == COUNTED
    assert {len(each.top_logprobs) for each in logprobs} == {2}


# What is kept


def test_several_turns(client: OpenAI) -> None:
    before: str | None = None
    for word in ("one", "two", "three"):
        response = client.responses.create(
            model=MODEL, input=f"Repeat after me: {word}", previous_response_id=before
        )
        assert (response.output_text, response.previous_response_id) == (word, before)
        before = response.id
    assert response.usage.input_tokens_details.cached_tokens > 0


def test_the_model_hears_earlier_turns(demo: OpenAI) -> None:
    first = demo.responses.create(model=MODEL, input="My name is Anna.")
    second = demo.responses.create(
        model=MODEL, input="What is my name?", previous_response_id=first.id
    )
    assert "Anna" in second.output_text


def test_input_items_page_by_page(client: OpenAI) -> None:
    said = [{"role": "user", "content": f"Repeat after me: w{number}"} for number in range(7)]
    response = client.responses.create(model=MODEL, input=said)
    page = client.responses.input_items.list(response.id, limit=3, order="asc")
    assert page.has_more
    assert [item.content[0].text for item in page] == [each["content"] for each in said]


def test_retrieve_and_delete(client: OpenAI) -> None:
    response = client.responses.create(
        model=MODEL, input="Repeat after me: sea", metadata={"a": "b"}
    )
    assert client.responses.retrieve(response.id) == response
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_a_stream_is_taken_up_where_it_was_left(demo: OpenAI) -> None:
    stream = demo.responses.create(model=MODEL, input="Count to 20", stream=True, background=True)
    seen = []
    with stream:
        for event in stream:
            seen.append(event)
            if event.sequence_number == 6:
                break
    identifier = seen[0].response.id
    rest = list(demo.responses.retrieve(identifier, stream=True, starting_after=6))
    assert rest[0].sequence_number == 7
    deltas = [e.delta for e in [*seen, *rest] if e.type == "response.output_text.delta"]
    assert "".join(deltas) == demo.responses.retrieve(identifier).output_text
    assert "".join(deltas).endswith("20")


def test_background_is_asked_for_until_it_is_done(demo: OpenAI) -> None:
    response = demo.responses.create(model=MODEL, input="Count to 5", background=True)
    assert response.status in ("queued", "in_progress")
    while response.status in ("queued", "in_progress"):
        response = demo.responses.retrieve(response.id)
    assert (response.status, response.output_text) == ("completed", COUNTED)


def test_background_is_cancelled(demo: OpenAI) -> None:
    response = demo.responses.create(
        model=MODEL, input="Hello", background=True, extra_body={"min_tokens": 1500}
    )
    assert demo.responses.cancel(response.id).status == "cancelled"
    assert demo.responses.retrieve(response.id).status == "cancelled"


def test_an_answer_that_is_whole_stays_so(demo: OpenAI) -> None:
    response = demo.responses.create(model=MODEL, input="Count to 5")
    assert demo.responses.cancel(response.id) == response


def test_a_prompt_is_counted_before_it_is_sent(client: OpenAI) -> None:
    fields: Any = {"model": MODEL, "input": "Repeat after me: sea", "tools": [ADD]}
    counted = client.responses.input_tokens.count(**fields)
    response = client.responses.create(**fields)
    assert counted.input_tokens == response.usage.input_tokens


def test_a_conversation_is_made_shorter(client: OpenAI) -> None:
    before = None
    for word in ("one", "two"):
        before = client.responses.create(
            model=MODEL, input=f"Repeat after me: {word}", previous_response_id=before
        ).id
    short = client.responses.compact(model=MODEL, previous_response_id=before)
    assert [item.type for item in short.output] == ["message", "message", "compaction"]
    kept = [item.model_dump(exclude_none=True) for item in short.output]
    asked = {"role": "user", "content": "Repeat after me: sea"}
    again = client.responses.create(model=MODEL, input=[*kept, asked], store=False)
    assert again.output_text == "sea"


# Conversations


def test_a_conversation_from_its_beginning_to_its_end(client: OpenAI) -> None:
    conversation = client.conversations.create(
        metadata={"topic": "sea"},
        items=[{"type": "message", "role": "user", "content": "Hi"}],
    )
    for word in ("sea", "shell"):
        response = client.responses.create(
            model=MODEL, input=f"Repeat after me: {word}", conversation=conversation.id
        )
        assert response.output_text == word
        assert response.conversation.id == conversation.id
    items = list(client.conversations.items.list(conversation.id, order="asc", limit=2))
    assert [item.role for item in items] == ["user", "user", "assistant", "user", "assistant"]
    (more,) = client.conversations.items.create(
        conversation.id, items=[{"role": "user", "content": "Bye"}]
    ).data
    assert client.conversations.items.retrieve(more.id, conversation_id=conversation.id) == more
    client.conversations.items.delete(more.id, conversation_id=conversation.id)
    assert len(list(client.conversations.items.list(conversation.id))) == 5
    updated = client.conversations.update(conversation.id, metadata={"topic": "shells"})
    assert client.conversations.retrieve(conversation.id) == updated
    assert updated.metadata == {"topic": "shells"}
    assert client.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)


# Errors


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 7}, "temperature"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"extra_body": {"no_such_field": 1}}, "no_such_field"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"previous_response_id": "resp_1", "conversation": "conv_1"}, "previous_response_id"),
    ],
)
def test_wrong_fields_are_named(demo: OpenAI, fields: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        demo.responses.create(**{"model": MODEL, "input": "Hi"} | fields)
    assert caught.value.param == param


def test_an_unknown_response(demo: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        demo.responses.create(model=MODEL, input="Hi", previous_response_id="resp_none")
    assert caught.value.code == "previous_response_not_found"
    for use in (demo.responses.retrieve, demo.responses.delete, demo.responses.cancel):
        with pytest.raises(openai.NotFoundError):
            use("resp_none")


def test_a_prompt_that_is_too_long(demo: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        demo.responses.create(model=MODEL, input="word " * 5000)
    assert caught.value.code == "context_length_exceeded"


def test_no_key(scripted_url: str) -> None:
    with (
        OpenAI(base_url=f"{scripted_url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.responses.create(model=MODEL, input="Hi")
