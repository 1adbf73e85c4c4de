"""Haystack's `OpenAIChatGenerator` and `OpenAIResponsesChatGenerator`, alone and as agents."""

from __future__ import annotations

from typing import Any

from common import (
    ADD,
    ADDED,
    COUNT,
    COUNTED,
    DEMO_URL,
    DORA,
    EXTRACT,
    KEY,
    MODEL,
    SCRIPTED_URL,
    TOO_LONG,
    User,
    add,
    case,
    is_told_in,
    run,
)
from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage, StreamingChunk
from haystack.tools import create_tool_from_function
from haystack.utils import Secret

TOOL = create_tool_from_function(add)


def options(url: str) -> dict[str, Any]:
    key = Secret.from_token(KEY)
    return {"model": MODEL, "api_base_url": url, "api_key": key, "max_retries": 0}


DEMO = OpenAIChatGenerator(**options(DEMO_URL))


def answer(generator: Any, text: str, **more: Any) -> ChatMessage:
    return generator.run([ChatMessage.from_user(text)], **more)["replies"][0]


def agents_answer(generator: Any) -> str | None:
    agent = Agent(chat_generator=generator, tools=[TOOL])
    return agent.run(messages=[ChatMessage.from_user(ADD)])["messages"][-1].text


@case
def a_whole_answer() -> None:
    assert answer(DEMO, COUNT).text == COUNTED


@case
def a_stream() -> None:
    chunks: list[StreamingChunk] = []
    assert answer(DEMO, COUNT, streaming_callback=chunks.append).text == COUNTED
    assert "".join(chunk.content for chunk in chunks) == COUNTED


@case
def an_agent_with_a_tool() -> None:
    assert agents_answer(OpenAIChatGenerator(**options(SCRIPTED_URL))) == ADDED


@case
def strict_tools() -> None:
    generator = OpenAIChatGenerator(**options(SCRIPTED_URL), tools=[TOOL], tools_strict=True)
    (call,) = answer(generator, ADD).tool_calls
    assert (call.tool_name, call.arguments) == ("add", {"a": 2, "b": 40})


@case
def a_typed_answer() -> None:
    generator = OpenAIChatGenerator(
        **options(SCRIPTED_URL), generation_kwargs={"response_format": User}
    )
    assert User.model_validate_json(answer(generator, EXTRACT).text or "") == DORA


@case
def an_agent_over_responses() -> None:
    assert agents_answer(OpenAIResponsesChatGenerator(**options(SCRIPTED_URL))) == ADDED


@case
def a_prompt_that_is_too_long() -> None:
    assert is_told_in(lambda: answer(DEMO, TOO_LONG))


run()
