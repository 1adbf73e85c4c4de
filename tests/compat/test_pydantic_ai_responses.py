"""Pydantic AI over responses: typed output, tools, histories, the server's memory, streams."""

from __future__ import annotations

import pytest
from pydantic_ai import Agent, ModelHTTPError
from pydantic_ai.messages import ThinkingPart
from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from tests.compat.pydantic_ai_cases import PydanticCases


def responses_model(url: str) -> OpenAIResponsesModel:
    return OpenAIResponsesModel("millstream-demo", provider=OpenAIProvider(base_url=f"{url}/v1"))


@pytest.fixture
def model(scripted_url: str) -> OpenAIResponsesModel:
    return responses_model(scripted_url)


@pytest.fixture
def demo(demo_url: str) -> OpenAIResponsesModel:
    return responses_model(demo_url)


class TestPydanticAI(PydanticCases):
    """Over responses."""


async def test_tools_then_a_history_with_thoughts(model: OpenAIResponsesModel) -> None:
    agent = Agent(model, instructions="Use tools.")

    @agent.tool_plain
    def add(a: int, b: int) -> int:
        return a + b

    first = await agent.run("Please add 2 and 40.")
    assert first.output == "The result is 42."
    second = await agent.run("Think aloud about seven", message_history=first.all_messages())
    parts = second.all_messages()[-1].parts
    (thought,) = [part for part in parts if isinstance(part, ThinkingPart)]
    # `content` is for summaries; thoughts as they are stand here.
    assert thought.provider_details["raw_content"][0].strip() == "Seven has no divisors."
    third = await agent.run("Repeat after me: sea", message_history=second.all_messages())
    assert third.output == "sea"


async def test_the_servers_memory(model: OpenAIResponsesModel) -> None:
    settings = OpenAIResponsesModelSettings(openai_previous_response_id="auto")
    agent = Agent(model, model_settings=settings)

    @agent.tool_plain
    def add(a: int, b: int) -> int:
        return a + b

    first = await agent.run("Please add 2 and 40.")
    again = await agent.run("Repeat after me: sea", message_history=first.all_messages())
    assert (first.output, again.output) == ("The result is 42.", "sea")


async def test_errors(demo: OpenAIResponsesModel) -> None:
    with pytest.raises(ModelHTTPError, match="top_p"):
        await Agent(demo, model_settings=ModelSettings(top_p=7)).run("Hi")
