"""Pydantic AI over the Messages API: typed output, tools, histories with thoughts, streams."""

from __future__ import annotations

import os

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.profiles.anthropic import AnthropicModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider

from tests.compat.pydantic_ai_cases import AgentCases


def messages_model(url: str) -> AnthropicModel:
    provider = AnthropicProvider(base_url=url, api_key=os.environ["OPENAI_API_KEY"])
    # By its name it is no model of which Pydantic AI knows that it keeps to a schema.
    profile = AnthropicModelProfile(supports_json_schema_output=True)
    return AnthropicModel("millstream-demo", provider=provider, profile=profile)


@pytest.fixture
def model(scripted_url: str) -> AnthropicModel:
    return messages_model(scripted_url)


@pytest.fixture
def demo(demo_url: str) -> AnthropicModel:
    return messages_model(demo_url)


class TestPydanticAI(AgentCases):
    """Over messages."""


async def test_usage_counts_what_was_cached(model: AnthropicModel) -> None:
    agent = Agent(model, instructions="Be brief. " * 40)
    first = await agent.run("Repeat after me: one")
    again = await agent.run("Repeat after me: two", message_history=first.all_messages())
    assert again.usage.cache_read_tokens > 0
    assert again.usage.output_tokens > 0
