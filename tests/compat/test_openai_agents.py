"""OpenAI Agents SDK over chat completions: tools, handoffs, typed output, streams, sessions."""

from __future__ import annotations

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    SQLiteSession,
)
from openai import AsyncOpenAI, BadRequestError
from openai.types.responses import ResponseTextDeltaEvent

from tests.compat.agent_cases import AgentCases, Event, add


def chat_model(url: str) -> OpenAIChatCompletionsModel:
    client = AsyncOpenAI(base_url=f"{url}/v1", max_retries=0)
    return OpenAIChatCompletionsModel(model="millstream-demo", openai_client=client)


@pytest.fixture
def model(scripted_url: str) -> OpenAIChatCompletionsModel:
    return chat_model(scripted_url)


@pytest.fixture
def demo(demo_url: str) -> OpenAIChatCompletionsModel:
    return chat_model(demo_url)


class TestAgents(AgentCases):
    """Over chat completions."""


async def test_text(demo: OpenAIChatCompletionsModel) -> None:
    result = await Runner.run(Agent(name="A", model=demo), "Count to 5")
    assert result.final_output == "1\n2\n3\n4\n5"
    assert result.context_wrapper.usage.output_tokens > 5


async def test_text_stream(demo: OpenAIChatCompletionsModel) -> None:
    result = Runner.run_streamed(Agent(name="A", model=demo), "Count to 20")
    deltas = [
        event.data.delta
        async for event in result.stream_events()
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent)
    ]
    counted = "\n".join(map(str, range(1, 21)))  # so long that it cannot come in one piece
    assert "".join(deltas) == result.final_output == counted
    assert len(deltas) > 1


@pytest.mark.parametrize("choice", ["required", "add"])
async def test_tool_choice_is_enforced(demo: OpenAIChatCompletionsModel, choice: str) -> None:
    agent = Agent(
        name="A",
        model=demo,
        tools=[add],
        model_settings=ModelSettings(tool_choice=choice, max_tokens=200),
        tool_use_behavior="stop_on_first_tool",
    )
    result = await Runner.run(agent, "Hello!")
    assert isinstance(result.final_output, int | str)
    assert result.new_items[0].type == "tool_call_item"


async def test_typed_output_stream(model: OpenAIChatCompletionsModel) -> None:
    agent = Agent(name="A", model=model, output_type=Event)
    result = Runner.run_streamed(agent, "Read the date of the party.")
    async for _ in result.stream_events():
        pass
    assert result.final_output == Event(title="party", day=5)


async def test_agent_as_tool(model: OpenAIChatCompletionsModel) -> None:
    echo = Agent(name="Echo", model=model)
    tool = echo.as_tool(tool_name="echo", tool_description="Says it again.")
    agent = Agent(name="A", model=model, tools=[tool])
    result = await Runner.run(agent, "Let the echo speak.")
    assert result.final_output == "The echo said sea."


async def test_session(demo: OpenAIChatCompletionsModel) -> None:
    session = SQLiteSession("one")
    agent = Agent(name="A", model=demo)
    await Runner.run(agent, "My name is Anna.", session=session)
    result = await Runner.run(agent, "What is my name?", session=session)
    assert "Anna" in result.final_output


async def test_settings(demo: OpenAIChatCompletionsModel) -> None:
    settings = ModelSettings(
        temperature=0.5,
        top_p=0.9,
        max_tokens=3,
        frequency_penalty=0.1,
        presence_penalty=0.1,
        parallel_tool_calls=True,
        metadata={"for": "a test"},
        include_usage=True,
        extra_body={"seed": 1},
    )
    agent = Agent(name="A", model=demo, model_settings=settings, tools=[add])
    result = Runner.run_streamed(agent, "Count to 9")
    async for _ in result.stream_events():
        pass
    assert result.context_wrapper.usage.output_tokens == 3


async def test_errors(demo: OpenAIChatCompletionsModel) -> None:
    agent = Agent(name="A", model=demo, model_settings=ModelSettings(top_p=7))
    with pytest.raises(BadRequestError, match="top_p"):
        await Runner.run(agent, "Hi")
