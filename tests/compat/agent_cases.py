"""What agents of the OpenAI Agents SDK do whatever API their model speaks."""

from __future__ import annotations

from agents import Agent, Model, Runner, function_tool, set_tracing_disabled
from pydantic import BaseModel

set_tracing_disabled(True)


class Event(BaseModel):
    title: str
    day: int


@function_tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


class AgentCases:
    """To be inherited by a class of tests; its module says what `model` is."""

    async def test_tool_loop(self, model: Model) -> None:
        agent = Agent(name="A", instructions="Use tools.", model=model, tools=[add])
        result = await Runner.run(agent, "Please add 2 and 40.")
        assert result.final_output == "The result is 42."
        kinds = [item.type for item in result.new_items]
        assert kinds == ["tool_call_item", "tool_call_output_item", "message_output_item"]

    async def test_tool_loop_stream(self, model: Model) -> None:
        agent = Agent(name="A", model=model, tools=[add])
        result = Runner.run_streamed(agent, "Add 1 and 2, also 3 and 4.")
        items = [
            event.item.type
            async for event in result.stream_events()
            if event.type == "run_item_stream_event"
        ]
        assert items.count("tool_call_item") == 2
        assert result.final_output == "Both: 3 and 7."

    async def test_typed_output(self, model: Model) -> None:
        agent = Agent(name="A", model=model, output_type=Event)
        result = await Runner.run(agent, "Read the date of the party.")
        assert result.final_output == Event(title="party", day=5)

    async def test_handoff(self, model: Model) -> None:
        poet = Agent(name="Poet", instructions="You write verse.", model=model)
        desk = Agent(name="Desk", instructions="Hand over.", model=model, handoffs=[poet])
        result = await Runner.run(desk, "I need a verse.")
        assert result.last_agent.name == "Poet"
        assert result.final_output == "A verse it is."
