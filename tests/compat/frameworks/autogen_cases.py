"""AutoGen's `OpenAIChatCompletionClient`, alone and as an agent's model."""

from __future__ import annotations

from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import ModelInfo, UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
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
    is_told_in_await,
    run,
)

INFO = ModelInfo(
    vision=False, function_calling=True, json_output=True, structured_output=True, family="unknown"
)


def client(url: str) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(
        model=MODEL, base_url=url, api_key=KEY, model_info=INFO, max_retries=0
    )


def said(text: str) -> list[UserMessage]:
    return [UserMessage(content=text, source="user")]


@case
async def a_whole_answer() -> None:
    result = await client(DEMO_URL).create(said(COUNT))
    assert result.content == COUNTED
    assert result.usage.completion_tokens > 5


@case
async def a_stream() -> None:
    *pieces, result = [piece async for piece in client(DEMO_URL).create_stream(said(COUNT))]
    assert "".join(pieces) == result.content == COUNTED
    assert len(pieces) > 1


@case
async def an_agent_with_a_tool() -> None:
    for is_streamed in (False, True):
        agent = AssistantAgent(
            "helper",
            model_client=client(SCRIPTED_URL),
            tools=[add],
            reflect_on_tool_use=True,
            model_client_stream=is_streamed,
        )
        assert (await agent.run(task=ADD)).messages[-1].content == ADDED


@case
async def a_typed_answer() -> None:
    result = await client(SCRIPTED_URL).create(said(EXTRACT), json_output=User)
    assert User.model_validate_json(result.content) == DORA


@case
async def a_prompt_that_is_too_long() -> None:
    assert await is_told_in_await(client(DEMO_URL).create(said(TOO_LONG)))


run()
