"""What Pydantic AI does whatever API its model speaks."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models import Model


class City(BaseModel):
    name: str
    country: str


class PydanticCases:
    """To be inherited by a class of tests; its module says what `model` and `demo` are."""

    async def test_text_stream(self, demo: Model) -> None:
        async with Agent(demo).run_stream("Count to 9") as stream:
            pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
        assert len(pieces) > 3
        assert "".join(pieces) == "1\n2\n3\n4\n5\n6\n7\n8\n9"

    @pytest.mark.parametrize(
        "output",
        [City, ToolOutput(City), NativeOutput(City), PromptedOutput(City)],
        ids=["default", "tool", "native", "prompted"],
    )
    async def test_typed_output(self, model: Model, output: Any) -> None:
        agent: Agent[None, City] = Agent(model, output_type=output)
        result = await agent.run("Where were the Olympics of 2012?")
        assert result.output == City(name="London", country="UK")
