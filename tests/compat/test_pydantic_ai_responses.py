"""Pydantic AI over responses: typed output, tools, histories, the server's memory, streams."""

from __future__ import annotations

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ThinkingPart
from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.openai import OpenAIProvider

from tests.compat.pydantic_ai_cases import AgentCases


def responses_model(url: str) -> OpenAIResponsesModel:
    return OpenAIResponsesModel("millstream-demo", provider=OpenAIProvider(base_url=f"{url}/v1"))


@pytest.fixture
def model(scripted_url: str) -> OpenAIResponsesModel:
    return responses_model(scripted_url)


@pytest.fixture
def demo(demo_url: str) -> OpenAIResponsesModel:
    return responses_model(demo_url)


class TestPydanticAI(AgentCases):
    """Over responses, where `content` is for summaries and thoughts as they are stand beside."""

    @staticmethod
    def thought_of(part: ThinkingPart) -> str:
        text: str = (part.provider_details or {})["raw_content"][0]
        return text


async def test_the_servers_memory(model: OpenAIResponsesModel) -> None:
    settings = OpenAIResponsesModelSettings(openai_previous_response_id="auto")
    agent = Agent(model, model_settings=settings)

    @agent.tool_plain
    def add(a: int, b: int) -> int:
        return a + b

    first = await agent.run("Please add 2 and 40.")
    again = await agent.run("Repeat after me: sea", message_history=first.all_messages())
    assert (first.output, again.output) == ("The result is 42.", "sea")
