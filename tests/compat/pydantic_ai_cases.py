"""What Pydantic AI does whatever API its model speaks."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.messages import ThinkingPart
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings


class City(BaseModel):
    name: str
    country: str


class PydanticCases:
    """To be inherited by a class of tests; its module says what `model` and `demo` are."""

    async def test_text_stream(self, demo: Model) -> None:
        async with Agent(demo).run_stream("Count to 20") as stream:
            pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
        assert len(pieces) > 1, "so long an answer cannot come in one piece"
        assert "".join(pieces) == "\n".join(map(str, range(1, 21)))

    @pytest.mark.parametrize(
        "output",
        [City, ToolOutput(City), NativeOutput(City), PromptedOutput(City)],
        ids=["default", "tool", "native", "prompted"],
    )
    async def test_typed_output(self, model: Model, output: Any) -> None:
        agent: Agent[None, City] = Agent(model, output_type=output)
        result = await agent.run("Where were the Olympics of 2012?")
        assert result.output == City(name="London", country="UK")


class AgentCases(PydanticCases):
    """The same for APIs of agents, which carry thoughts in their histories."""

    @staticmethod
    def thought_of(part: ThinkingPart) -> str:
        """What a thought says."""
        return part.content

    async def test_tools_then_a_history_with_thoughts(self, model: Model) -> None:
        agent = Agent(model, instructions="Use tools.")

        @agent.tool_plain
        def add(a: int, b: int) -> int:
            return a + b

        first = await agent.run("Please add 2 and 40.")
        assert first.output == "The result is 42."
        second = await agent.run("Think aloud about seven", message_history=first.all_messages())
        parts = second.all_messages()[-1].parts
        (thought,) = [part for part in parts if isinstance(part, ThinkingPart)]
        assert self.thought_of(thought).strip() == "Seven has no divisors."
        third = await agent.run("Repeat after me: sea", message_history=second.all_messages())
        assert third.output == "sea"

    async def test_errors(self, demo: Model) -> None:
        with pytest.raises(ModelHTTPError, match="top_p"):
            await Agent(demo, model_settings=ModelSettings(top_p=7)).run("Hi")
