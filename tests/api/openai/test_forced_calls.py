"""Calls that must be made, or must be right: what the engine is told, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders

from millstream.core.plan import Plan, StepOutput
from millstream.core.request import Grammar
from millstream.errors import InvalidRequest
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.intake.requests.chat_checks import parse_chat_request
from millstream.text.grammars.answer_formats import MAX_CHARACTERS
from millstream.text.parsing.answer_reader import AnswerReader
from millstream.text.parsing.detection import detect
from millstream.workers.workers import Workers
from tests.api.conftest import Api, api
from tests.api.talk import HERMES, Talk, joined, marked_tokenizer, talk, whole
from tests.text.parsing.samples import TOOLS, choose, tool

__all__ = ["api", "marked_tokenizer", "talk"]

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
NAMED = {"type": "function", "function": {"name": "get_weather"}}
FORCED: list[dict[str, Any]] = [
    {"tool_choice": "required"},
    {"tool_choice": NAMED},
    {"tool_choice": "get_weather"},
]


@pytest.fixture
def told(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> list[Grammar | None]:
    """The grammars of the requests that reached the engine."""
    grammars: dict[int, Grammar | None] = {}
    seen: list[Grammar | None] = []
    original = talk.speaker.step

    def step(plan: Plan) -> StepOutput:
        for chunk in plan.chunks:
            if chunk.request_id not in grammars:
                grammars[chunk.request_id] = chunk.request.grammar
                seen.append(chunk.request.grammar)
        return original(plan)

    monkeypatch.setattr(talk.speaker, "step", step)
    return seen


@pytest.mark.parametrize("fields", FORCED)
async def test_a_forced_call(
    fields: dict[str, Any], talk: Talk, told: list[Grammar | None]
) -> None:
    answer = await talk.both(CALL, **fields)
    assert answer.calls == [("get_weather", '{"city": "Paris"}')]
    assert answer.content == ""
    assert talk.template.tools == TOOLS, "the model is told of all"
    is_named = fields["tool_choice"] != "required"
    assert answer.finish_reason == ("stop" if is_named else "tool_calls")
    assert told[0] is not None
    assert ("write-file" in told[0].text) != is_named
    assert "get_weather" in told[0].text
    assert told == [told[0]] * 2


@pytest.mark.parametrize("fields", FORCED)
async def test_a_forced_call_that_is_cut_off(fields: dict[str, Any], talk: Talk) -> None:
    answer = await talk.both(CALL, max_tokens=60, **fields)
    ((name, arguments),) = answer.calls
    assert (name, answer.finish_reason) == ("get_weather", "length")
    assert '{"city": "Paris"}'.startswith(arguments)
    answer = await talk.both(CALL, stop=["ari"], **fields)
    assert answer.calls == [("get_weather", '{"city": "P')]


@pytest.mark.parametrize("stream", [False, True])
async def test_keywords_of_tools_that_are_left_to_the_model_are_named(
    stream: bool, talk: Talk
) -> None:
    tags = {"type": "array", "uniqueItems": True, "items": {"type": "string"}}
    properties = {"tags": tags, "name": {"not": {"const": ""}}}
    tools = [*TOOLS, tool("tag")]
    tools[-1]["function"]["parameters"] = {"type": "object", "properties": properties}
    talk.speaker.say(CALL)
    response = await talk.post(tools=tools, tool_choice="required", stream=stream)
    assert response.status_code == 200, response.text
    assert response.headers["x-unenforced-keywords"] == "uniqueItems, not"
    for name, left in (("get_weather", None), ("tag", "uniqueItems, not")):
        response = await talk.post(tools=tools, tool_choice=name, stream=stream)
        assert response.headers.get("x-unenforced-keywords") == left
    tools[-1]["function"]["strict"] = True
    for fields in ({}, {"tool_choice": "required"}):
        response = await talk.post(tools=tools, stream=stream, **fields)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (
            400,
            f"tools[{len(TOOLS)}].function.parameters",
        )
        assert "properties.tags.uniqueItems" in error["message"]


ANSWER = '{"a": "<tool_call>", "b": "<think>"}'
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}},
}


@pytest.mark.parametrize(
    "fields",
    [{"response_format": FORMAT}, {"guided_json": {"type": "object"}, "tool_choice": "auto"}],
)
async def test_an_answer_with_a_format_may_be_a_call(
    fields: dict[str, Any], talk: Talk, told: list[Grammar | None]
) -> None:
    answer = await talk.both("<think>\nHm.\n</think>\n\n" + ANSWER, **fields)
    assert (answer.content, answer.reasoning, answer.calls) == (ANSWER, "Hm.", [])
    assert answer.finish_reason == "stop"
    answer = await talk.both(CALL + "\n" + CALL, **fields)
    assert answer.calls == [("get_weather", '{"city": "Paris"}')] * 2
    assert (answer.content, answer.finish_reason) == ("", "tool_calls")
    assert told == [told[0]] * 4
    assert told[0] is not None
    assert all(part in told[0].text for part in ("@answer", "get_weather", "write-file"))


async def test_a_format_beside_calls_that_must_come(talk: Talk, told: list[Grammar | None]) -> None:
    for fields in FORCED:
        answer = await talk.both(CALL, response_format=FORMAT, **fields)
        assert answer.calls == [("get_weather", '{"city": "Paris"}')]
        assert told[-1] is not None
        assert "@answer" not in told[-1].text
        wrong = {"type": "regex", "value": "("}
        param = await talk.refused(response_format=wrong, **fields)
        assert param == "response_format.value"
    answer = await talk.both(ANSWER, response_format=FORMAT, tool_choice="none")
    assert (answer.content, answer.calls) == (ANSWER, [])


async def test_a_format_and_calls_of_a_model_that_writes_them_in_json(
    talk: Talk, told: list[Grammar | None]
) -> None:
    """Where the model's own way of calling cannot be in a grammar."""
    talk.parsers = replace(choose("think", "hermes"), writing=None)
    answer = await talk.both(ANSWER, response_format=FORMAT)
    assert (answer.content, answer.calls) == (ANSWER, [])
    call = '[{"name": "get_weather", "arguments": {"city": "Paris"}}]'
    answer = await talk.both(call, response_format=FORMAT)
    assert answer.calls == [("get_weather", '{"city": "Paris"}')]
    assert told[0] is not None
    assert "@answer" in told[0].text


async def test_several_answers_with_scores(talk: Talk) -> None:
    talk.speaker.say(CALL)
    fields: dict[str, Any] = {"tool_choice": "required", "n": 3, "logprobs": True}
    body = await talk.body(**fields)
    events = await talk.events(**fields)
    for index, choice in enumerate(body["choices"]):
        answer = whole(choice)
        assert joined(events, index) == answer
        assert answer.calls == [("get_weather", '{"city": "Paris"}')]
        assert "".join(entry["token"] for entry in answer.logprobs) == CALL
    ids = {choice["message"]["tool_calls"][0]["id"] for choice in body["choices"]}
    assert len(ids) == 3


async def test_free_calls_have_a_grammar_only_if_they_must_be_right(
    talk: Talk, told: list[Grammar | None]
) -> None:
    strict = [*TOOLS, tool("more")]
    strict[-1]["function"]["strict"] = True
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}
    for fields in (
        {},
        {"tool_choice": "auto"},
        {"tool_choice": "none"},
        {"tools": strict},
        {"tool_choice": allowed},
    ):
        answer = await talk.both("<think>Hm.</think>It is " + CALL, **fields)
        is_off = fields.get("tool_choice") == "none"
        assert answer.content == ("It is " + CALL if is_off else "It is")
        assert answer.reasoning == "Hm."
        assert len(answer.calls) == (not is_off)
    assert [grammar is not None for grammar in told[::2]] == [False, False, False, True, True]
    assert told[-1] is not None
    assert "write-file" not in told[-1].text


@pytest.mark.parametrize("parsers", [AnswerReader(), choose("think", "none")])
async def test_a_model_without_a_format_calls_in_json(
    parsers: AnswerReader, talk: Talk, told: list[Grammar | None]
) -> None:
    talk.parsers = parsers
    text = '[{"name": "now", "arguments": {}}, {"name": "write-file", "arguments": {"path": "]"}}]'
    answer = await talk.both(text, tool_choice="required")
    assert answer.calls == [("now", "{}"), ("write-file", '{"path": "]"}')]
    assert (answer.content, answer.finish_reason) == ("", "tool_calls")
    assert told[0] is not None
    assert await talk.refused() == "tools"
    assert await talk.refused(tool_choice="auto") == "tools"


async def test_a_template_without_tools_is_offered_none(api: Api) -> None:
    for fields in FORCED:
        response = await api.post(tools=TOOLS, **fields)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "tools")


async def test_what_a_format_cannot_write_is_written_in_json_or_refused(
    talk: Talk, told: list[Grammar | None]
) -> None:
    talk.parsers = choose("none", "glm")
    function = {
        "name": "f",
        "parameters": {"properties": {"a": {"type": "string", "pattern": "^x"}}},
    }
    tools = [TOOLS[1], {"type": "function", "function": function | {"strict": True}}]
    text = '[{"name": "f", "arguments": {"a": "xy"}}]'
    answer = await talk.both(text, tools=tools, tool_choice="f")
    assert answer.calls == [("f", '{"a": "xy"}')]
    assert await talk.refused(tools=tools) == "tools[1].function.strict"
    answer = await talk.both("<tool_call>now\n</tool_call>", tools=TOOLS, tool_choice="required")
    assert answer.calls == [("now", "{}")]
    assert told[-1] is not None
    assert '"[' not in told[-1].text


BAD = [
    {"type": "object", "not": {}},
    {"type": "array"},
    {"type": ["string", "null"]},
    {"properties": {"a": {"type": "nonsense"}}},
    {"properties": {"a": {"$ref": "#/$defs/nothing"}}},
    {"properties": {"a": {"enum": ["x" * MAX_CHARACTERS]}}},
    {"properties": {"a": {"enum": []}}, "required": ["a"]},
]


@pytest.mark.parametrize("parameters", BAD)
@pytest.mark.parametrize("name", ["hermes", "glm"])
async def test_a_schema_that_cannot_be_held_to_is_named(
    name: str, parameters: Any, talk: Talk, told: list[Grammar | None]
) -> None:
    talk.parsers = choose("none", name)
    bad = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    tools = [*TOOLS[:2], bad]
    path = "tools[2].function.parameters"
    assert await talk.refused(tools=tools, tool_choice="required") == path
    assert await talk.refused(tools=tools, tool_choice="f") == path
    strict = {"type": "function", "function": bad["function"] | {"strict": True}}
    assert await talk.refused(tools=[*TOOLS[:2], strict]) == path
    assert not told
    await talk.both("Hi", tools=tools)
    await talk.both("Hi", tools=tools, tool_choice="now")


async def test_all_tools_together_may_be_too_large(talk: Talk) -> None:
    tools = [tool(f"f{index}", **{"a" * 50_000: "string"}) for index in range(6)]
    assert await talk.refused(tools=tools, tool_choice="required") == "tools"
    assert await talk.refused(tools=tools, tool_choice="required", ignore_eos=True) == "tools"
    assert await talk.refused(tools=tools[:1], tool_choice="f0", ignore_eos=True) == "ignore_eos"


async def test_a_tokenizer_without_bytes_is_refused(
    byte_tokenizer: Tokenizer, workers: Workers
) -> None:
    tokenizer = Tokenizer.from_str(byte_tokenizer.to_str())
    tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(InvalidRequest, match="not made of bytes") as caught:
        await calls_of(AnswerGrammars(tokenizer, workers), tool_choice="required")
    assert caught.value.param == "tool_choice"


async def calls_of(
    formats: AnswerGrammars,
    *,
    parsers: AnswerReader = HERMES,
    prompt: tuple[int, ...] = (1,),
    may_think: bool = False,
    **fields: Any,
) -> Grammar:
    messages = [{"role": "user", "content": "x"}]
    chat = parse_chat_request({"messages": messages, "tools": TOOLS} | fields)
    wanted = chat.wanted_calls
    assert wanted is not None
    form = await formats.calls(
        wanted, chat.tools or (), parsers, prompt=prompt, may_think=may_think
    )
    return form.grammar


async def test_markers_that_are_tokens_are_written_as_tokens(
    byte_tokenizer: Tokenizer, workers: Workers
) -> None:
    tokenizer = Tokenizer.from_str(byte_tokenizer.to_str())
    tokenizer.add_tokens(["<tool_call>", "</tool_call>", "<think>", "</think>"])
    ids = [tokenizer.token_to_id(mark) for mark in ("<tool_call>", "</tool_call>")]
    formats = AnswerGrammars(tokenizer, workers)
    text = (await calls_of(formats, tool_choice="required")).text
    assert all(f"<[{token}]>" in text for token in ids)
    lark = json.loads(text)["grammars"][0]["lark_grammar"]
    assert '"<tool_call>' not in lark.split("TEXT:")[0]
    plain = (await calls_of(AnswerGrammars(byte_tokenizer, workers), tool_choice="required")).text
    assert '\\"<tool_call>' in plain


@pytest.mark.parametrize("choice", ["required", "now"])
async def test_calls_come_after_the_reasoning(
    choice: str, byte_tokenizer: Tokenizer, workers: Workers
) -> None:
    tokenizer = Tokenizer.from_str(byte_tokenizer.to_str())
    tokenizer.add_tokens(["<think>", "</think>"])
    begin, end = (tokenizer.token_to_id(mark) for mark in ("<think>", "</think>"))
    formats = AnswerGrammars(tokenizer, workers)
    opened = await calls_of(formats, prompt=(1, begin), tool_choice=choice)
    assert (opened.starts_after, opened.opens_with) == (end, None)
    may = await calls_of(formats, may_think=True, tool_choice=choice)
    assert (may.starts_after, may.opens_with) == (end, begin)
    # Nobody would read the reasoning, so there is none.
    silent = await calls_of(
        formats, prompt=(1, begin), parsers=choose("none", "hermes"), tool_choice=choice
    )
    assert (silent.starts_after, silent.opens_with) == (None, None)


def test_every_format_has_a_way_to_write_calls() -> None:
    for template, name in (
        ("[TOOL_CALLS]", "[TOOL_CALLS]["),
        ("[TOOL_CALLS] [ARGS]", ""),
        ("<｜tool▁call▁begin｜>", "<｜tool▁calls▁begin｜>"),
    ):
        writing = detect(template, ()).writing
        assert writing is not None
        assert writing.before == name
