"""LangChain's own standard tests for chat models, on ChatOpenAI pointed at the server.

All of them run twice: with the scripted model, where every case that the server supports must
pass, and with the demo model, where expected.toml lists what a toy cannot do.
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
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
