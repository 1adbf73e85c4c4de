"""Response templates: compared with transformers' own parser, which defines what they mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers.utils.chat_parsing import ResponseParser, parse_response

import millstream
from millstream.text.parsing.answer_reader import AnswerReader
from millstream.text.parsing.detection import detect
from millstream.text.parsing.output import ParsedAnswer
from millstream.text.parsing.response_templates import CannotCompile, compile_template
from tests.text.parsing.samples import NESTED, TOOLS, answer, call

DEMO = Path(millstream.__file__).parent / "demo" / "model"
ASSISTANT = "<|im_start|>assistant\n"
FUNCTION = {"name": "{name}", "arguments": "{content}"}


def template(tool_calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "defaults": {"role": "assistant"},
        "start_anchor": ASSISTANT,
        "fields": {
            "content": {"close_pattern": r"\s*<\|im_end\|>", "repeats": True, "join": ""},
            "reasoning_content": {"open": "<think>", "close_pattern": r"</think>\s*"},
            "tool_calls": {"repeats": True, **tool_calls},
            **fields,
        },
    }


DEMO_TEMPLATE: dict[str, Any] = json.loads(
    (DEMO / "tokenizer_config.json").read_text(encoding="utf-8")
)["response_template"]
QWEN = template(
    {
        "open_pattern": r"\s*<tool_call>",
        "close": "</tool_call>",
        "content": "json",
        "transform": {"type": "function", "function": "{content}"},
    }
)
CODER = template(
    {
        "open_pattern": r"\s*<tool_call>\s*<function=(?P<name>[^>\n]+)>",
        "close_pattern": r"</function>\s*</tool_call>",
        "content": "xml-inline",
        "content_args": {
            "tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>"
        },
        "transform": {"type": "function", "function": FUNCTION},
    }
)
NAMED = template(
    {
        "open_pattern": r"\[TOOL_CALLS\](?P<name>[\w.-]+)\[ARGS\]",
        "content": "json",
        "close": "[END]",
        "transform": {"type": "function", "function": FUNCTION},
    }
)
# In the manner of Gemma 4: JSON with bare keys and its own quotation marks. Not compiled.
LAX = template(
    {
        "open_pattern": r"\s*<\|tool_call>call:(?P<name>[\w-]+)",
        "close": "<tool_call|>",
        "content": "json",
        "content_args": {"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]},
        "transform": {"type": "function", "function": FUNCTION},
    }
)

THOUGHT = "<think>\nHm.\n</think>\n\n"
CASES = {
    "demo, one call": (
        DEMO_TEMPLATE,
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "é \\u00e9"}}\n</tool_call>',
    ),
    "demo, all": (
        DEMO_TEMPLATE,
        THOUGHT + 'I look.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {"a": [1, {}]}}\n</tool_call><|im_end|>',
    ),
    "demo, text": (DEMO_TEMPLATE, "1 < 2 <b>x</b><|im_end|>"),
    "demo, unclosed thought": (DEMO_TEMPLATE, "<think>\nOn and on"),
    "qwen": (QWEN, THOUGHT + 'Now.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'),
    "coder": (
        CODER,
        THOUGHT + "Now.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n"
        "</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=hours>\n[1]\n</parameter>\n"
        "</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
    ),
    "named": (NAMED, 'Now.[TOOL_CALLS]get_weather[ARGS]{"city": "x"}[END]'),
    "lax": (LAX, THOUGHT + 'Now.\n<|tool_call>call:get_weather{city:<|"|>a "b"<|"|>}<tool_call|>'),
}


class Parsers:
    """A tokenizer with a response template."""

    def __init__(self, response_template: dict[str, Any]) -> None:
        self.response_template = response_template

    def get_response_parser(
        self, response_template: dict[str, Any], *, prefix: str, tools: list[dict[str, Any]] | None
    ) -> Any:
        return ResponseParser(response_template, prefix=prefix, tools=tools)


def choose(response_template: dict[str, Any]) -> AnswerReader:
    return detect("", (), response_template, response_parsers=Parsers(response_template))


def reference(response_template: dict[str, Any], text: str, prompt: str) -> dict[str, Any]:
    parsed = parse_response(text, response_template, prefix=prompt, tools=TOOLS)
    calls = [made["function"] for made in parsed.get("tool_calls", [])]
    return {
        "content": parsed.get("content", ""),
        "reasoning": parsed.get("reasoning_content", ""),
        "calls": [(made["name"], made["arguments"]) for made in calls],
    }


def loaded(parsed: ParsedAnswer) -> dict[str, Any]:
    calls = [(made.name, json.loads(made.arguments)) for made in parsed.calls]
    return {"content": parsed.content, "reasoning": parsed.reasoning, "calls": calls}


every_case = pytest.mark.parametrize(("response_template", "text"), CASES.values(), ids=CASES)


@every_case
def test_the_result_is_transformers(response_template: dict[str, Any], text: str) -> None:
    choice = choose(response_template)
    assert (choice.response_parsers is not None) == (response_template is LAX)
    expected = reference(response_template, text, ASSISTANT)
    parser = choice.parser(prompt=ASSISTANT, tools=TOOLS)
    assert loaded(answer(parser, text)) == expected
    for place in range(len(text)):
        parser = choice.parser(prompt=ASSISTANT, tools=TOOLS)
        assert loaded(answer(parser, text[:place], text[place:])) == expected, text[:place]


@pytest.mark.parametrize("response_template", [DEMO_TEMPLATE, LAX], ids=["demo", "lax"])
@pytest.mark.parametrize(
    ("started", "text", "new"),
    [
        ("", "Hi.", ParsedAnswer("Hi.")),
        ("<think>\n", "this.\n</think>\n\nHi.", ParsedAnswer("Hi.", "this.")),
        ("<think>\n\n</think>\n\n", "Hi.", ParsedAnswer("Hi.")),
        ("<think>\nSo far", " so good.</think>Hi.", ParsedAnswer("Hi.", " so good.")),
        ("Once", " Hi.", ParsedAnswer(" Hi.")),
    ],
)
def test_the_prompt_may_have_begun_the_answer(
    response_template: dict[str, Any], started: str, text: str, new: ParsedAnswer
) -> None:
    earlier = f"{ASSISTANT}<think>cut off<|im_end|>\n<|im_start|>user\n<think>?<|im_end|>\n"
    prompt = f"{earlier}{ASSISTANT}{started}"
    for pieces in ([text], list(text)):
        parser = choose(response_template).parser(prompt=prompt, tools=TOOLS)
        assert answer(parser, *pieces) == new
    # transformers gives what the prompt began, too; a stream goes on after it.
    whole = reference(response_template, text, prompt)
    assert whole["content"].endswith(new.content)
    assert whole["reasoning"].endswith(new.reasoning)


def test_white_space_that_ends_the_prompt_is_not_said_again() -> None:
    parser = choose(DEMO_TEMPLATE).parser(prompt=f"{ASSISTANT}Once ", tools=TOOLS)
    assert answer(parser, "upon") == ParsedAnswer("upon")


def test_every_pair_of_token_cuts_of_the_demo_model() -> None:
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    text = CASES["demo, all"][1]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = [tokenizer.decode([token], skip_special_tokens=False) for token in ids]
    assert "".join(pieces) == text
    assert len(pieces) > 40
    choice = choose(DEMO_TEMPLATE)
    expected = ParsedAnswer("I look.", "Hm.", (call("now"), call("now", '{"a": [1, {}]}')))
    for start in range(len(pieces)):
        for end in range(start, len(pieces)):
            cut = "".join(pieces[:start]), "".join(pieces[start:end]), "".join(pieces[end:])
            parser = choice.parser(prompt=ASSISTANT, tools=TOOLS)
            assert answer(parser, *cut) == expected, cut
    assert answer(choice.parser(prompt=ASSISTANT, tools=TOOLS), *pieces) == expected


def test_a_marker_within_an_argument_is_read_where_the_reference_fails() -> None:
    text = f'<tool_call>\n{{"name": "get_weather", "arguments": {NESTED}}}\n</tool_call>'
    with pytest.raises(ValueError, match="could not parse"):
        reference(DEMO_TEMPLATE, text, ASSISTANT)
    parser = choose(DEMO_TEMPLATE).parser(prompt=ASSISTANT, tools=TOOLS)
    assert answer(parser, text) == ParsedAnswer(calls=(call("get_weather", NESTED),))


def test_a_marker_that_is_only_mentioned_does_not_hide_the_call_after_it() -> None:
    text = 'Use <tool_call>.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    parser = choose(DEMO_TEMPLATE).parser(prompt=ASSISTANT, tools=TOOLS)
    assert answer(parser, text) == ParsedAnswer("Use <tool_call>.", calls=(call("now"),))


@pytest.mark.parametrize(
    ("text", "content", "names"),
    [
        ("<|tool_call>call:now{a:}<tool_call|> Well.", "{a:} Well.", []),
        ("<|tool_call>call:now{a:1", "{a:1", []),
        ("<|tool_call>call:rm{a:1}<tool_call|>", "", ["rm"]),
        ("<|tool_call>call:file{a:1}<tool_call|>", "", ["write-file"]),
        ("<|tool_call>call:now[]]<tool_call|><|tool_call>call:now{}<tool_call|>", "[]]", ["now"]),
    ],
)
def test_a_call_that_only_transformers_reads_and_cannot(
    text: str, content: str, names: list[str]
) -> None:
    late = {**LAX["fields"]["tool_calls"], "close_pattern": r"<tool_call\|>"}
    del late["close"]
    for response_template in (LAX, template(late)):
        choice = choose(response_template)
        for pieces in ([text], list(text)):
            parsed = answer(choice.parser(prompt=ASSISTANT, tools=TOOLS), *pieces)
            assert (parsed.content, [made.name for made in parsed.calls]) == (content, names)


JSON_CALL = QWEN["fields"]["tool_calls"]


@pytest.mark.parametrize(
    "response_template",
    [
        LAX,
        template(JSON_CALL, content={"open": "<say>", "close": "</say>"}),
        template(JSON_CALL, citations={"open": "<c>", "close": "</c>"}),
        template(JSON_CALL, thinking={"open": "<t>", "close": "</t>"}),
        template(JSON_CALL, reasoning_content={"open": "<think>"}),
        template({**JSON_CALL, "transform": {"type": "function", "function": FUNCTION}}),
        template({**JSON_CALL, "open_pattern": r"<call>\w+"}),
        template({**JSON_CALL, "close": ["</call>", "</call>x"]}),
        template({**JSON_CALL, "transform": {"function": {"name": "{content.a.b}"}}}),
        template({**JSON_CALL, "content": "kv-lines"}),
        template({**CODER["fields"]["tool_calls"], "content_args": {"tag_pattern": "<(?P<key>.)"}}),
    ],
)
def test_what_could_not_be_streamed_rightly_is_not_compiled(
    response_template: dict[str, Any],
) -> None:
    with pytest.raises(CannotCompile):
        compile_template(response_template)
    assert choose(response_template).can_call_tools
    assert detect("", (), response_template).is_none


def test_of_two_markers_at_one_place_the_longer_wins_however_it_is_cut() -> None:
    thought = {"open": "<t>", "close": "</t>"}
    response_template = template({**JSON_CALL, "open": "<t>call"}, reasoning_content=thought)
    del response_template["fields"]["tool_calls"]["open_pattern"]
    text = 'A<t>B</t>C<t>call{"name": "now", "arguments": {}}</tool_call>'
    expected = ParsedAnswer("AC", "B", (call("now"),))
    choice = choose(response_template)
    assert loaded(expected) == reference(response_template, text, ASSISTANT)
    for place in range(len(text)):
        parser = choice.parser(prompt=ASSISTANT, tools=TOOLS)
        assert answer(parser, text[:place], text[place:]) == expected


def test_other_keys_of_a_call() -> None:
    keys = {"name": "{content.tool}", "arguments": "{content.input}"}
    transform = {"type": "function", "function": keys}
    choice = choose(template({**JSON_CALL, "transform": transform}))
    text = '<tool_call>{"tool": "now", "input": {"a": 1}}</tool_call>'
    parsed = answer(choice.parser(prompt=ASSISTANT, tools=TOOLS), text)
    assert parsed == ParsedAnswer(calls=(call("now", '{"a": 1}'),))
    assert replace(choice, calls=()).can_call_tools is False


@pytest.mark.parametrize("response_template", [CODER, LAX], ids=["compiled", "lax"])
def test_a_long_run_of_white_space_takes_no_time(response_template: dict[str, Any]) -> None:
    """A pattern that begins with white space took seconds here, with the square of the length."""
    parser = choose(response_template).parser(prompt=ASSISTANT, tools=TOOLS)
    parser.push("x" if response_template is LAX else "<tool_call><function=now><parameter=a>x")
    spaces = " " * (40_000 if response_template is LAX else 80_000)
    before = process_time()
    deltas = parser.push(spaces + "y")
    assert process_time() - before < 4
    assert deltas[0].text.endswith(" y")  # type: ignore[union-attr]
