"""What a model's template is told beside the messages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from millstream.errors import InvalidRequest
from millstream.generation.context import ModelContext
from millstream.generation.prompts import Prompts
from millstream.intake.requests.agent_chat import AgentChat
from millstream.intake.requests.chat import ChatRequest
from millstream.text.chat_prompt import ChatFormatter
from tests.text.conftest import byte_tokenizer
from tests.text.test_template_shapes import Template

__all__ = ["byte_tokenizer"]

PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
THINKING = PLAIN + "{{ enable_thinking }}"
FIELDS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hi"}],
    "reasoning_effort": "high",
}


@pytest.fixture
def text_of(byte_tokenizer: Any) -> Any:
    def render(source: str, chat: ChatRequest) -> str:
        formatter = ChatFormatter(Template(source), byte_tokenizer)
        parsers = SimpleNamespace(can_call_tools=False)
        context = SimpleNamespace(chat=formatter, parsers=parsers)
        return Prompts(cast(ModelContext, context)).prompt(chat, max_context=None).text

    return render


@pytest.mark.parametrize("kind", [ChatRequest, AgentChat])
def test_a_template_that_can_think_hears_of_an_effort(
    text_of: Any, kind: type[ChatRequest]
) -> None:
    assert text_of(THINKING, kind.model_validate(FIELDS)) == "HiTrue"


def test_an_agent_is_answered_by_a_template_that_knows_no_effort(text_of: Any) -> None:
    assert text_of(PLAIN, AgentChat.model_validate(FIELDS)) == "Hi"
    with pytest.raises(InvalidRequest, match="knows no reasoning effort"):
        text_of(PLAIN, ChatRequest.model_validate(FIELDS))
