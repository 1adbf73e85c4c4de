"""Calls of custom tools, whose input has a form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer

from millstream.core.request import Grammar
from millstream.errors import InvalidRequest
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.chat_preparation import Preparation
from millstream.generation.prompts import Prompts
from millstream.intake.responses.chat_of_response import ChatOfResponse
from tests.api.talk import Talk, marked_tokenizer, talk
from tests.intake.responses.bodies import EXEC, chat_of
from tests.text.conftest import byte_tokenizer
from tests.text.parsing.samples import choose

__all__ = ["byte_tokenizer", "marked_tokenizer", "talk"]


def custom(syntax: str, definition: str) -> dict[str, Any]:
    form = {"type": "grammar", "syntax": syntax, "definition": definition}
    return {"type": "custom", "name": "apply", "description": "Applies.", "format": form}


LARK = custom("lark", 'start: "on" | "off"')
REGEX = custom("regex", "[a-z]+")
ODD = {"type": "function", "name": "odd", "parameters": {"type": "array"}}


def made(*tools: dict[str, Any], **fields: Any) -> ChatOfResponse:
    return chat_of(tools=list(tools), **fields)


@pytest.fixture
def grammar_of(talk: Talk, marked_tokenizer: Tokenizer) -> Any:
    async def prepare(asked: ChatOfResponse, family: str = "hermes") -> Grammar | None:
        context = replace(talk.context, parsers=choose("none", family))
        grammars = AnswerGrammars(marked_tokenizer, context.workers)
        preparation = Preparation(context, prompts=Prompts(context), grammars=grammars)
        try:
            return (await preparation.prepare(asked.chat)).first.grammar
        except InvalidRequest as error:
            raise asked.in_words_of_responses(error) from error

    return prepare


@pytest.mark.parametrize(("tool", "said"), [(LARK, "(?:on)|(?:off)"), (REGEX, "[a-z]+")])
async def test_the_input_of_a_custom_tool_is_held_to_its_form(
    grammar_of: Any, tool: dict[str, Any], said: str
) -> None:
    grammar = await grammar_of(made(EXEC, tool))
    assert grammar is not None
    assert said in grammar.text
    shown = made(EXEC, tool).chat.offered_tools[1]["function"]
    assert shown["parameters"]["properties"] == {"input": {"type": "string"}}
    assert tool["format"]["definition"] in shown["description"]


async def test_where_nothing_can_hold_the_calls_they_are_free(grammar_of: Any) -> None:
    assert await grammar_of(made(EXEC, LARK), family="glm") is None
    assert await grammar_of(made(ODD, LARK)) is None
    assert await grammar_of(made(EXEC, custom("lark", 'start: "a" start?'))) is None
    assert await grammar_of(made({"type": "custom", "name": "apply"})) is None


async def test_a_tool_that_is_strict_itself_is_not_let_go(grammar_of: Any) -> None:
    held = {**ODD, "parameters": {"properties": {"a": {"type": "string", "pattern": "^x"}}}}
    with pytest.raises(InvalidRequest) as refusal:
        await grammar_of(made({**held, "strict": True}, LARK), family="glm")
    assert refusal.value.param == "tools[0].strict"


@pytest.mark.parametrize("tool", [custom("regex", "[a-"), custom("regex", "(?=a)b")])
async def test_a_form_that_is_wrong_is_named(grammar_of: Any, tool: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await grammar_of(made(EXEC, tool))
    assert refusal.value.param == "tools[1].format.definition"


async def test_a_forced_call_of_a_custom_tool_has_its_form(grammar_of: Any) -> None:
    choice = {"type": "custom", "name": "apply"}
    for family in ("hermes", "glm"):
        grammar = await grammar_of(made(EXEC, LARK, tool_choice=choice), family=family)
        assert grammar is not None
        assert "(?:on)|(?:off)" in grammar.text
        assert "exec_command" not in grammar.text
