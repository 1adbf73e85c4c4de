"""LangChain's own standard tests for chat models, on ChatOpenAI pointed at the server.

All of them run three times: with the scripted model, over chat completions and over responses,
where every case that the server supports must pass, and with the demo model, where expected.toml
lists what a toy cannot do.
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import BaseModel


class _Server(ChatModelIntegrationTests):
    """What the server can do; the rest is skipped by the suite itself."""

    url: str

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "millstream-demo", "base_url": f"{self.url}/v1", "stream_usage": True}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return False

    @property
    def model_override_value(self) -> str:
        return "millstream-demo"


class TestScriptedModel(_Server):
    @pytest.fixture(autouse=True)
    def _use_server(self, scripted_url: str) -> None:
        type(self).url = scripted_url


class TestResponses(TestScriptedModel):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return super().chat_model_params | {"use_responses_api": True}


class TestDemoModel(_Server):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        # Where the toy does not find an end, this is one.
        return super().chat_model_params | {"max_tokens": 100}

    @pytest.fixture(autouse=True)
    def _use_server(self, demo_url: str) -> None:
        type(self).url = demo_url


class Joke(BaseModel):
    """A joke."""

    setup: str
    punchline: str


@pytest.mark.parametrize(
    ("method", "strict"),
    [
        ("function_calling", None),
        ("function_calling", True),
        ("json_schema", None),
        ("json_schema", True),
        ("json_mode", None),
    ],
)
def test_ways_to_structured_output(scripted_url: str, method: Any, strict: bool | None) -> None:
    """The suite takes ChatOpenAI's default; a user may take any."""
    model = ChatOpenAI(model="millstream-demo", base_url=f"{scripted_url}/v1")
    chain = model.with_structured_output(Joke, method=method, strict=strict)
    answer = chain.invoke("Tell me a joke about cats.")
    assert answer == Joke(setup="Why do cats purr?", punchline="To keep warm.")
    assert list(chain.stream("Tell me a joke about cats."))[-1] == answer


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@pytest.mark.parametrize("version", ["responses/v1", "v0", "v1"])
def test_responses_remember_the_turns_before(scripted_url: str, version: str) -> None:
    """LangChain sends what is new, and the id of the response before."""
    model = ChatOpenAI(
        model="millstream-demo",
        base_url=f"{scripted_url}/v1",
        use_responses_api=True,
        use_previous_response_id=True,
        output_version=version,
    )
    history: list[BaseMessage] = [HumanMessage("Please add 2 and 40.")]
    asked = model.bind_tools([add]).invoke(history)
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 2, "b": 40})
    history += [asked, ToolMessage("42", tool_call_id=call["id"])]
    result = model.bind_tools([add]).invoke(history)
    assert result.text == "The result is 42."
    history += [result, HumanMessage("Repeat after me: sea")]
    pieces = list(model.stream(history))
    assert "".join(piece.text for piece in pieces) == "sea"
    assert result.response_metadata["id"].startswith("resp_")


def test_thoughts_of_a_response_are_blocks(scripted_url: str) -> None:
    model = ChatOpenAI(
        model="millstream-demo",
        base_url=f"{scripted_url}/v1",
        use_responses_api=True,
        output_version="responses/v1",
    )
    answer = model.invoke("Think aloud about seven")
    assert [block["type"] for block in answer.content] == ["reasoning", "text"]
    assert answer.usage_metadata["output_token_details"]["reasoning"] > 3
    again = model.invoke([HumanMessage("Think"), answer, HumanMessage("Repeat after me: sea")])
    assert again.text == "sea"


class TestUnits(ChatModelUnitTests):
    """Needs no server: that ChatOpenAI takes our settings as the suite expects."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "millstream-demo", "base_url": "http://localhost:8080/v1"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        url = "http://localhost:8080/v1"
        environment = {"OPENAI_API_KEY": "none", "OPENAI_API_BASE": url}
        return environment, {"model": "millstream-demo"}, {"openai_api_base": url}
