"""OpenAI Agents SDK over responses, and its sessions in conversations that the server keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
)
from agents.memory import OpenAIResponsesCompactionSession
from openai import AsyncOpenAI, BadRequestError
from openai.types.responses import ResponseTextDeltaEvent
from openai.types.shared import Reasoning

from tests.compat.agent_cases import AgentCases, add


@pytest.fixture
async def client(scripted_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{scripted_url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def model(client: AsyncOpenAI) -> OpenAIResponsesModel:
    return OpenAIResponsesModel(model="millstream-demo", openai_client=client)


class TestAgents(AgentCases):
    """Over responses."""


async def test_text_stream(model: OpenAIResponsesModel) -> None:
    result = Runner.run_streamed(Agent(name="A", model=model), "Repeat after me: sea")
    deltas = [
        event.data.delta
        async for event in result.stream_events()
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent)
    ]
    assert "".join(deltas) == result.final_output == "sea"
    assert result.context_wrapper.usage.output_tokens > 0


async def test_tool_loop_with_the_servers_memory(model: OpenAIResponsesModel) -> None:
    agent = Agent(name="A", model=model, tools=[add])
    first = await Runner.run(agent, "Please add 2 and 40.", auto_previous_response_id=True)
    assert first.final_output == "The result is 42."
    again = await Runner.run(
        agent, "Repeat after me: sea", previous_response_id=first.last_response_id
    )
    assert again.final_output == "sea"


async def test_thoughts_stay_in_the_history(model: OpenAIResponsesModel) -> None:
    agent = Agent(
        name="A",
        model=model,
        model_settings=ModelSettings(
            reasoning=Reasoning(effort="low", summary="auto"),
            response_include=["reasoning.encrypted_content"],
            store=False,
        ),
    )
    first = await Runner.run(agent, "Think aloud about seven")
    assert first.new_items[0].type == "reasoning_item"
    again = await Runner.run(
        agent, [*first.to_input_list(), {"role": "user", "content": "Repeat after me: sea"}]
    )
    assert again.final_output == "sea"


async def test_a_session_is_a_conversation_on_the_server(
    client: AsyncOpenAI, model: OpenAIResponsesModel
) -> None:
    session = OpenAIConversationsSession(openai_client=client)
    agent = Agent(name="A", model=model, tools=[add])
    await Runner.run(agent, "Please add 2 and 40.", session=session)
    result = await Runner.run(agent, "Repeat after me: sea", session=session)
    assert result.final_output == "sea"
    kinds = [item.get("type", "message") for item in await session.get_items()]
    assert kinds == [
        "message",
        "function_call",
        "function_call_output",
        "message",
        "message",
        "message",
    ]
    last: Any = await session.pop_item()
    assert last["role"] == "assistant"
    assert len(await session.get_items()) == 5
    await session.clear_session()


async def test_a_conversation_keeps_what_is_said(
    client: AsyncOpenAI, model: OpenAIResponsesModel
) -> None:
    conversation = await client.conversations.create()
    agent = Agent(name="A", model=model, tools=[add])
    result = await Runner.run(agent, "Please add 2 and 40.", conversation_id=conversation.id)
    assert result.final_output == "The result is 42."
    items = [item async for item in client.conversations.items.list(conversation.id, order="asc")]
    assert [item.type for item in items] == [
        "message",
        "function_call",
        "function_call_output",
        "message",
    ]


@pytest.mark.parametrize("mode", ["previous_response_id", "input"])
async def test_a_session_is_made_shorter(
    client: AsyncOpenAI, model: OpenAIResponsesModel, mode: Any
) -> None:
    session = OpenAIResponsesCompactionSession(
        session_id="one",
        underlying_session=SQLiteSession("one"),
        client=client,
        compaction_mode=mode,
        should_trigger_compaction=lambda context: len(context["session_items"]) > 3,
    )
    agent = Agent(name="A", model=model)
    for word in ("one", "two"):
        await Runner.run(agent, f"Repeat after me: {word}", session=session)
    kinds = [item.get("type", "message") for item in await session.get_items()]
    assert kinds == ["message", "message", "compaction"]
    again = await Runner.run(agent, "Repeat after me: sea", session=session)
    assert again.final_output == "sea"


async def test_errors(model: OpenAIResponsesModel) -> None:
    agent = Agent(name="A", model=model, model_settings=ModelSettings(top_p=7))
    with pytest.raises(BadRequestError, match="top_p"):
        await Runner.run(agent, "Hi")
