"""LlamaIndex's `OpenAILike`: as chat model, as an agent's model, and for typed answers."""

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
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def model(url: str, **options: Any) -> OpenAILike:
    return OpenAILike(
        model=MODEL, api_base=url, api_key=KEY, is_chat_model=True, max_retries=0, **options
    )


DEMO = model(DEMO_URL)
SCRIPTED = model(SCRIPTED_URL, is_function_calling_model=True)
COUNT_MESSAGES = [ChatMessage(role="user", content=COUNT)]
TOOL = FunctionTool.from_defaults(add)


@case
def a_whole_answer() -> None:
    assert DEMO.chat(COUNT_MESSAGES).message.content == COUNTED
    assert DEMO.complete(COUNT).text == COUNTED


@case
def a_stream() -> None:
    pieces = [chunk.delta for chunk in DEMO.stream_chat(COUNT_MESSAGES)]
    assert "".join(map(str, pieces)) == COUNTED
    assert len(pieces) > 1


@case
async def an_agent_with_a_tool() -> None:
    for is_streamed in (False, True):
        agent = FunctionAgent(tools=[TOOL], llm=SCRIPTED, streaming=is_streamed)
        assert str(await agent.run(ADD)) == ADDED


@case
def a_typed_answer() -> None:
    assert SCRIPTED.structured_predict(User, PromptTemplate(EXTRACT)) == DORA
    assert SCRIPTED.as_structured_llm(User).complete(EXTRACT).raw == DORA


@case
def a_typed_answer_by_its_schema() -> None:
    typed = model(SCRIPTED_URL, should_use_structured_outputs=True)
    assert typed.structured_predict(User, PromptTemplate(EXTRACT)) == DORA


@case
def a_prompt_that_is_too_long() -> None:
    assert is_told_in(lambda: DEMO.complete(TOO_LONG))


run()
