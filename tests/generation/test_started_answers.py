"""Prompts that end within an answer."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.errors import InvalidRequest
from millstream.generation.started_answers import with_start
from millstream.intake.requests.agent_chat import AgentChat
from millstream.text.parsing.answer_reader import AnswerReader
from tests.text.parsing.samples import choose

THINK = choose("think", "hermes")


def chat(*said: str, **fields: Any) -> AgentChat:
    messages = [{"role": "user", "content": "Hi"}]
    messages += [{"role": "assistant", "content": text} for text in said]
    return AgentChat.model_validate({"messages": messages} | fields)


@pytest.mark.parametrize(
    ("said", "prompt", "expected"),
    [
        ("It is ", "A: It is", "A: It is "),
        ("It is ", "A: It is ", "A: It is "),
        ("1\n\n", "A: 1\n", "A: 1\n"),  # the template has written something else
        ("It is", "A: It is", "A: It is"),
    ],
)
def test_blanks_that_a_template_cuts_off_are_there(said: str, prompt: str, expected: str) -> None:
    assert with_start(prompt, chat(said), THINK, marked=str) == (expected, expected)
    closed = chat(said, continue_final_message=False)
    assert with_start(prompt, closed, THINK, marked=str) == (prompt, prompt)


@pytest.mark.parametrize("prompt", ["Hi\n", "Hi\n<think>\n", "Hi\n<think>"])
def test_a_thought_goes_on_after_its_marker(prompt: str) -> None:
    asked = chat()
    asked.start_thought("Let me ")
    head, text = with_start(prompt, asked, THINK, marked=str)
    assert text == f"{head}Let me "
    assert head.rstrip() == "Hi\n<think>"
    parser = THINK.parser(prompt=head)
    deltas = [*parser.push("see</think>Hello"), *parser.finish()]
    assert [(type(delta).__name__, delta.text) for delta in deltas] == [
        ("Reasoning", "see"),
        ("Content", "Hello"),
    ]


def test_a_model_without_markers_cannot_go_on_with_a_thought() -> None:
    asked = chat()
    asked.start_thought("Let me ")
    with pytest.raises(InvalidRequest):
        with_start("Hi\n", asked, AnswerReader(), marked=str)
