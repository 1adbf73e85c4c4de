"""smolagents' `OpenAIModel`, alone and in an agent that calls tools."""

from __future__ import annotations

from common import (
    ADD,
    ADDED,
    COUNT,
    COUNTED,
    DEMO_URL,
    KEY,
    MODEL,
    SCRIPTED_URL,
    TOO_LONG,
    case,
    is_told_in,
    run,
)
from smolagents import LogLevel, OpenAIModel, ToolCallingAgent, tool

DEMO = OpenAIModel(model_id=MODEL, api_base=DEMO_URL, api_key=KEY)
SCRIPTED = OpenAIModel(model_id=MODEL, api_base=SCRIPTED_URL, api_key=KEY)
COUNT_MESSAGES = [{"role": "user", "content": COUNT}]


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers.

    Args:
        a: the first
        b: the second
    """
    return a + b


@case
def a_whole_answer() -> None:
    assert DEMO.generate(COUNT_MESSAGES).content == COUNTED


@case
def a_stream() -> None:
    pieces = [delta.content or "" for delta in DEMO.generate_stream(COUNT_MESSAGES)]
    assert "".join(pieces) == COUNTED
    assert len(pieces) > 1


@case
def an_agent_with_a_tool() -> None:
    for is_streamed in (False, True):
        agent = ToolCallingAgent(
            tools=[add],
            model=SCRIPTED,
            max_steps=3,
            stream_outputs=is_streamed,
            verbosity_level=LogLevel.OFF,
        )
        assert agent.run(ADD) == ADDED


@case
def a_prompt_that_is_too_long() -> None:
    messages = [{"role": "user", "content": TOO_LONG}]
    assert is_told_in(lambda: DEMO.generate(messages))


run()
