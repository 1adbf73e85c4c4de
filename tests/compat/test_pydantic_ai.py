"""Pydantic AI: agents with typed output, tools, message histories and streams."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    ModelHTTPError,
    ModelRetry,
    NativeOutput,
    RunContext,
)
from pydantic_ai.messages import PartDeltaEvent, ThinkingPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from tests.compat.pydantic_ai_cases import City, PydanticCases


class Flag(BaseModel):
    is_set: bool


def chat_model(url: str) -> OpenAIChatModel:
    return OpenAIChatModel("millstream-demo", provider=OpenAIProvider(base_url=f"{url}/v1"))


@pytest.fixture
def model(scripted_url: str) -> OpenAIChatModel:
    return chat_model(scripted_url)


@pytest.fixture
def demo(demo_url: str) -> OpenAIChatModel:
    return chat_model(demo_url)


class TestPydanticAI(PydanticCases):
    """Over chat completions."""


async def test_text(demo: OpenAIChatModel) -> None:
    result = await Agent(demo).run("Count to 5")
    assert result.output == "1\n2\n3\n4\n5"
    assert result.usage.output_tokens > 5
    assert result.usage.requests == 1


async def test_instructions(model: OpenAIChatModel) -> None:
    agent = Agent(model, instructions="Be brief.", system_prompt="You are kind.")
    assert (await agent.run("Repeat after me: sea")).output == "sea"


async def test_reasoning(model: OpenAIChatModel) -> None:
    result = await Agent(model).run("Think aloud about seven")
    [thinking] = [
        part for part in result.all_messages()[-1].parts if isinstance(part, ThinkingPart)
    ]
    assert thinking.content == "Seven has no divisors."
    assert result.output == "It is a prime."


@pytest.mark.parametrize("output", [Flag, NativeOutput(Flag)], ids=["tool", "native"])
async def test_any_model_keeps_to_the_type(demo: OpenAIChatModel, output: object) -> None:
    agent = Agent(demo, output_type=output, model_settings=ModelSettings(max_tokens=100))
    assert isinstance((await agent.run("Hello!")).output, Flag)


async def test_one_of_several_outputs(model: OpenAIChatModel) -> None:
    agent = Agent(model, output_type=[City, Flag])
    assert (await agent.run("Where are the Olympics of 2012?")).output == City(
        name="London", country="UK"
    )


async def test_typed_output_stream(model: OpenAIChatModel) -> None:
    async with Agent(model, output_type=City).run_stream("Where are the Olympics of 2012?") as run:
        states = [state async for state in run.stream_output(debounce_by=None)]
    assert states[-1] == City(name="London", country="UK")
    assert len(states) > 1


async def test_tool_loop(model: OpenAIChatModel) -> None:
    agent = Agent(model)
    asked = []

    @agent.tool_plain
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        asked.append((a, b))
        return a + b

    result = await agent.run("Please add 2 and 40.")
    assert asked == [(2, 40)]
    assert result.output == "The result is 42."
    assert result.usage.tool_calls == 1


async def test_parallel_tool_calls(model: OpenAIChatModel) -> None:
    agent = Agent(model)
    asked = []

    @agent.tool_plain
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        asked.append((a, b))
        return a + b

    result = await agent.run("Add 1 and 2, also 3 and 4.")
    assert sorted(asked) == [(1, 2), (3, 4)]
    assert result.output == "Both: 3 and 7."


@dataclass
class Name:
    value: str


async def test_tools_with_dependencies_in_a_stream(model: OpenAIChatModel) -> None:
    agent = Agent(model, deps_type=Name)

    @agent.tool
    def player_name(context: RunContext[Name]) -> str:
        """The player's name."""
        return context.deps.value

    events = []

    async def watch(_: object, stream: object) -> None:
        events.extend([event async for event in stream])

    result = await agent.run(
        "What is the player's name?", deps=Name("Ida"), event_stream_handler=watch
    )
    assert result.output == "The player is Ida."
    assert any(isinstance(event, PartDeltaEvent) for event in events)


async def test_a_tool_that_asks_for_a_retry(model: OpenAIChatModel) -> None:
    agent = Agent(model)
    asked = []

    @agent.tool_plain
    def find(key: str) -> str:
        """Finds a value."""
        asked.append(key)
        if key != "right":
            raise ModelRetry("wrong key")
        return "21"

    result = await agent.run("Find the value.")
    assert asked == ["wrong", "right"]
    assert result.output == "The result is 21."


async def test_history(demo: OpenAIChatModel) -> None:
    agent = Agent(demo)
    first = await agent.run("My name is Anna.")
    second = await agent.run("What is my name?", message_history=first.all_messages())
    assert "Anna" in second.output


async def test_settings(demo: OpenAIChatModel) -> None:
    settings = ModelSettings(
        max_tokens=3,
        temperature=0.5,
        top_p=0.9,
        seed=1,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        logit_bias={"5": 1},
        stop_sequences=["9"],
        parallel_tool_calls=True,
        timeout=30,
    )
    result = await Agent(demo, model_settings=settings).run("Count to 9")
    assert result.usage.output_tokens == 3


async def test_errors(demo: OpenAIChatModel) -> None:
    with pytest.raises(ModelHTTPError) as caught:
        await Agent(demo, model_settings=ModelSettings(top_p=7)).run("Hi")
    assert caught.value.status_code == 400
    assert "top_p" in str(caught.value.body)
