"""The Messages API as Anthropic's SDK reads it, from the demo model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import Message

from .harness import RunningServer, wait_until

WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the current weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "The city"}},
        "required": ["city"],
    },
}
RESULT = json.dumps({"temperature": 21, "condition": "sunny"})
BLOCK = 16
"""Tokens of a block of the prefix cache."""
CITIES = ("Oslo", "Rome", "Paris", "Lima", "Cairo", "Tokyo", "Delhi", "Madrid")

# What the demo model says in these tests is what it was trained to say.


@pytest.fixture
def client(demo_server: RunningServer) -> Iterator[Anthropic]:
    with Anthropic(base_url=demo_server.url, api_key="none", max_retries=0) as client:
        yield client


def ask(client: Anthropic, said: list[Any], *, stream: bool = False, **fields: Any) -> Message:
    """The message; of a stream, as the SDK puts it together."""
    asked: dict[str, Any] = {"model": "any", "max_tokens": 300, "messages": said}
    asked |= {"extra_body": {"temperature": 0}, **fields}
    if not stream:
        message: Message = client.messages.create(**asked)
        return message
    with client.messages.stream(**asked) as events:
        return events.get_final_message()


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def echoed(message: Message) -> Any:
    return message.to_param()


@pytest.mark.parametrize("stream", [False, True])
def test_a_text(stream: bool, client: Anthropic) -> None:
    message = ask(client, [user("Say this is a test")], stream=stream)
    (block,) = message.content
    assert block.type == "text"
    assert "this is a test" in block.text.lower()
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 3


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_told(stream: bool, client: Anthropic) -> None:
    said = [user("What is the weather in Oslo?")]
    message = ask(client, said, stream=stream, tools=[WEATHER])
    assert message.stop_reason == "tool_use"
    call = message.content[-1]
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("get_weather", {"city": "Oslo"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}
    said += [echoed(message), {"role": "user", "content": [result]}]
    message = ask(client, said, stream=stream, tools=[WEATHER])
    assert message.stop_reason == "end_turn"
    assert message.content[0].type == "text"
    assert message.content[0].text == "The weather in Oslo is sunny, 21 degrees."


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_is_switched(stream: bool, client: Anthropic) -> None:
    said = [user("What is 27 + 58?")]
    message = ask(client, said, stream=stream, thinking={"type": "adaptive"})
    thinking, text = message.content
    assert (thinking.type, text.type) == ("thinking", "text")
    assert thinking.thinking
    assert thinking.signature
    assert "85" in text.text
    message = ask(client, said, stream=stream, thinking={"type": "disabled"})
    assert [block.type for block in message.content] == ["text"]


class Talk:
    """A conversation that grows, and what each of its turns cost."""

    def __init__(self, client: Anthropic, **fields: Any) -> None:
        self._client = client
        self._fields = fields
        self.said: list[Any] = []
        self.usages: list[Any] = []

    def turn(self, *content: Any, **fields: Any) -> Message:
        self.said.append({"role": "user", "content": list(content)})
        message = ask(self._client, self.said, **self._fields, **fields)
        self.said.append(echoed(message))
        self.usages.append(message.usage)
        return message

    @property
    def sizes(self) -> list[tuple[int, int, int]]:
        """Of each turn: tokens of the prompt, those of them that were cached, of the answer."""
        return [
            (u.input_tokens + u.cache_read_input_tokens, u.cache_read_input_tokens, u.output_tokens)
            for u in self.usages
        ]


def text(words: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **fields}


def test_a_turn_computes_only_its_new_tokens(client: Anthropic) -> None:
    """Also with tools, and where a program marks another block for the cache in each turn."""
    billing = text("x-anthropic-billing-header: cc_version=2.1;")
    talk = Talk(client, tools=[WEATHER], system=[billing, text("You are a weather service.")])
    for city in CITIES[:4]:
        asked = text(f"What is the weather in {city}?")
        call = talk.turn(asked, tool_choice={"type": "any"}).content[-1]
        assert call.type == "tool_use"
        talk.turn({"type": "tool_result", "tool_use_id": call.id, "content": RESULT})
    sizes = talk.sizes
    assert len(sizes) == 8
    for (prompt, _, answer), (_, cached, _) in pairwise(sizes):
        assert cached > prompt + answer - BLOCK - 2


def test_a_turn_after_thoughts_computes_what_followed_them(client: Anthropic) -> None:
    """The demo model's template leaves out thoughts from before the last question."""
    talk = Talk(client, thinking={"type": "enabled", "budget_tokens": 1024})
    for number in range(8):
        assert talk.turn(text(f"What is 27 + {50 + number}?")).content[0].type == "thinking"
    sizes = talk.sizes
    for (prompt, _, _), (_, cached, _) in pairwise(sizes):
        assert cached > prompt - BLOCK - 4


def test_another_billing_text_does_not_spoil_the_cache(client: Anthropic) -> None:
    long = text("Answer in one word. " * 6, cache_control={"type": "ephemeral"})
    usages = []
    for version in ("c40", "123"):
        billing = text(f"x-anthropic-billing-header: cc_version=2.1.197.{version};")
        usages.append(ask(client, [user("Hello")], system=[billing, long]).usage)
    first, second = usages
    assert second.input_tokens + second.cache_read_input_tokens == (
        first.input_tokens + first.cache_read_input_tokens
    )
    assert second.input_tokens <= BLOCK


def test_tokens_are_counted_as_they_are_computed(client: Anthropic) -> None:
    said = [user("What is the weather in Oslo?")]
    usage = ask(client, said, tools=[WEATHER], system="Be brief.").usage
    counted = client.messages.count_tokens(
        model="any", messages=said, tools=[WEATHER], system="Be brief."
    )
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_a_long_prompt_is_refused_in_the_words_that_programs_know(client: Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as refusal:
        ask(client, [user("word " * 3000)])
    error: Any = refusal.value.body
    count = int(error["error"]["message"].split()[4])
    assert error["error"]["message"] == f"prompt is too long: {count} tokens > 2047 maximum"
    assert count > 3000
    assert refusal.value.request_id == error["request_id"]


def test_a_wrong_field_is_named_where_the_client_sent_it(client: Anthropic) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[1\]\.content\[0\]\.type"):
        ask(client, [user("Hi"), {"role": "user", "content": [image]}])


def test_leaving_ends_the_answer(endless_server: RunningServer) -> None:
    with Anthropic(base_url=endless_server.url, api_key="none", max_retries=0) as client:
        asked: Any = {"model": "any", "max_tokens": 30_000, "messages": [user("Hi")]}
        with client.messages.stream(**asked) as events:
            next(iter(events.text_stream))
            assert endless_server.health()[1]["open_requests"] == 1
        wait_until(lambda: endless_server.health()[1]["open_requests"] == 0, "the place is free")


def test_a_silent_stream_has_pings(endless_server: RunningServer) -> None:
    asked: Any = {"model": "any", "max_tokens": 1, "messages": [user("word " * 8000)]}
    with (
        Anthropic(base_url=endless_server.url, api_key="none", max_retries=0) as client,
        client.messages.with_streaming_response.create(**asked, stream=True) as response,
    ):
        lines = list(response.iter_lines())
    place = lines.index("event: ping")
    assert lines[place + 1] == 'data: {"type": "ping"}'
    assert lines.index("event: message_start") > place
