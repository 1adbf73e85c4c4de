"""Which parser a model gets."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models

from millstream.errors import StartupError
from millstream.text.parsing.answer_reader import AnswerReader
from millstream.text.parsing.detection import detect, special_tokens_of
from millstream.text.parsing.output import ParsedAnswer
from tests.text.parsing.samples import TOOLS, answer, call

QWEN3 = """{%- if tools %}<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}
\\n</tool_call>{% endif %}{{ content.split('</think>')[-1] }}"""
CODER = "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>"
GLM = "</think> <tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>"
LLAMA31 = 'Respond in the format {"name": function name, "parameters": dictionary of argument name'
GPT_OSS = "<|start|>assistant<|channel|>commentary to=functions.{{ name }} <|constrain|>json"
TEMPLATE = {
    "start_anchor": "<a>",
    "fields": {"content": {}, "thinking": {"open": "<t>", "close": "</t>"}},
}


@pytest.mark.parametrize(
    ("chat_template", "description"),
    [
        ("{{ messages }}", "none"),
        (QWEN3, "think reasoning, hermes calls"),
        (QWEN3.replace("</think>", ""), "hermes calls"),
        (CODER, "qwen3-coder calls"),
        ("<function=name>{json}</function>", "none"),
        (GLM, "think reasoning, glm calls"),
        (LLAMA31, "llama3 calls"),
        ("{{ '<|python_tag|>' }}", "llama3 calls"),
        ("[TOOL_CALLS]{{ x }}", "mistral calls"),
        ("[THINK][/THINK][TOOL_CALLS]", "magistral reasoning, mistral calls"),
        ("</think><｜tool▁call▁begin｜>", "think reasoning, deepseek calls"),
        (GPT_OSS, "harmony reasoning, harmony calls"),
        ("<minimax:tool_call>", "minimax calls"),
        ("<seed:think></seed:think>", "seed reasoning"),
    ],
)
def test_from_the_chat_template(chat_template: str, description: str) -> None:
    choice = detect(chat_template, ())
    assert choice.description == description
    assert choice.can_call_tools == ("calls" in description)
    assert choice.is_none == (description == "none")


def test_the_response_template_comes_before_the_chat_template() -> None:
    choice = detect(QWEN3, (), TEMPLATE)
    assert choice.description == "response template"
    assert answer(choice.parser(prompt=""), "<t>x</t>y") == ParsedAnswer("y", "x")


def test_a_name_comes_before_both() -> None:
    assert detect(QWEN3, (), TEMPLATE, tools="mistral").description == (
        "think reasoning, mistral calls"
    )
    assert detect(QWEN3, (), TEMPLATE, reasoning="none").description == "hermes calls"
    assert detect(QWEN3, (), tools="none", reasoning="none").is_none


@pytest.mark.parametrize(("field", "what"), [("tools", "tool-call"), ("reasoning", "reasoning")])
def test_an_unknown_name_is_refused_with_the_known_ones(field: str, what: str) -> None:
    with pytest.raises(StartupError, match=f"no {what} parser 'x'.*auto, none, .*harmony"):
        detect("", (), **{field: "x"})  # type: ignore[arg-type]


def test_no_parser_delivers_the_text() -> None:
    text = " <think>\n[TOOL_CALLS]\n"
    assert answer(AnswerReader().parser(prompt="", tools=TOOLS), text) == ParsedAnswer(text)


def test_markers_that_are_special_tokens_must_be_seen_and_others_are_dropped() -> None:
    special = ["<s>", "</s>", "[TOOL_CALLS]", "[ARGS]", "[INST]"]
    choice = detect("[TOOL_CALLS]", special)
    assert choice.visible == {"[TOOL_CALLS]", "[ARGS]"}
    parsed = answer(
        choice.parser(prompt="", tools=TOOLS), "Hi</s>[INST]!", "[TOOL_CALLS]now[ARGS]{}</s>"
    )
    assert parsed == ParsedAnswer("Hi!", calls=(call("now"),))


def test_markers_that_are_plain_text_leave_special_tokens_hidden() -> None:
    choice = detect(QWEN3, ["<|im_end|>", "<|endoftext|>"])
    assert not choice.visible
    assert answer(choice.parser(prompt=""), "Say <|im_end|>.") == ParsedAnswer("Say <|im_end|>.")


def test_special_tokens_are_those_that_detokenising_leaves_out() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False)])
    tokenizer.add_special_tokens([AddedToken("<|python_tag|>", special=True)])
    assert special_tokens_of(tokenizer) == {"<|python_tag|>"}
    assert tokenizer.decode([0, 1], skip_special_tokens=True) == "<tool_call>"


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("deepseek", "<｜tool▁call▁begin｜>"),
        ("harmony", "<|channel|>"),
        ("harmony", "<|constrain|>"),
        ("llama3", "<|python_tag|>"),
        ("mistral", "[CALL_ID]"),
        ("glm", "</arg_value>"),
        ("hermes", "</tool_call>"),
    ],
)
def test_each_formats_special_tokens_are_known(name: str, token: str) -> None:
    assert detect("", [token, "<pad>"], tools=name).visible == {token}


def test_a_response_template_that_only_transformers_reads_needs_its_tokens() -> None:
    class Parsers:
        response_template = {"fields": {"content": {"open": "<c>"}}}  # noqa: RUF012

        def get_response_parser(self, response_template: object, **options: object) -> object:
            raise NotImplementedError

    choice = detect("", ["<c>", "<d>"], Parsers.response_template, response_parsers=Parsers())  # type: ignore[arg-type]
    assert choice.visible == {"<c>"}
