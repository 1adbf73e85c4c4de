"""Fields that say what the answer must look like: their shapes, and what the engine is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLTokenizer
from tokenizers import AddedToken, Tokenizer, decoders

from millstream.core.request import Grammar
from millstream.errors import InvalidRequest
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.intake.fields.response_format import WantedFormat
from millstream.intake.requests.chat_checks import parse_chat_request
from millstream.text.grammars.answer_formats import (
    choice_grammar,
    json_grammar,
    lark_grammar,
    regex_grammar,
)
from millstream.workers.workers import Workers
from tests.api.conftest import END, Api
from tests.text.conftest import piece_tokenizer

__all__ = ["piece_tokenizer"]

HELLO = [{"role": "user", "content": "hello"}]
OBJECT = {"type": "object"}
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "null"}}}


def wanted(**fields: Any) -> WantedFormat | None:
    return parse_chat_request({"messages": HELLO} | fields).wanted_format


def response_format(**members: Any) -> WantedFormat | None:
    return wanted(response_format=members)


def named(**members: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": members}


@pytest.mark.parametrize(
    ("fields", "param", "kind", "value"),
    [
        ({"type": "json_object"}, "", "json", OBJECT),
        ({"type": "json_object", "value": SCHEMA}, ".value", "json", SCHEMA),
        ({"type": "json", "value": json.dumps(SCHEMA)}, ".value", "json", json.dumps(SCHEMA)),
        ({"type": "json_object", "schema": SCHEMA}, ".schema", "json", SCHEMA),
        ({"type": "json_schema", "schema": SCHEMA}, ".schema", "json", SCHEMA),
        ({"type": "grammar", "grammar": 'start: "a"'}, ".grammar", "grammar", 'start: "a"'),
        ({"type": "regex", "value": "a+"}, ".value", "regex", "a+"),
        ({"type": "json_schema", "name": "n", "schema": SCHEMA}, ".schema", "json", SCHEMA),
        (
            {"type": "json_schema", "name": "n", "description": "d", "schema": SCHEMA}
            | {"strict": True},
            ".schema",
            "json",
            SCHEMA,
        ),
        (named(name="n", schema=SCHEMA), ".json_schema.schema", "json", SCHEMA),
        (
            named(name="n", description="d", strict=True, schema=SCHEMA),
            ".json_schema.schema",
            "json",
            SCHEMA,
        ),
        (named(name="n", strict=False), "", "json", OBJECT),
        (
            {"type": "json_schema", "value": {"name": "n", "schema": SCHEMA}},
            ".value.schema",
            "json",
            SCHEMA,
        ),
    ],
)
def test_response_formats(fields: dict[str, Any], param: str, kind: str, value: Any) -> None:
    found = response_format(**fields)
    assert found is not None
    assert found[:3] == (f"response_format{param}", kind, value)
    assert found.is_strict == bool((fields.get("json_schema") or fields).get("strict"))


@pytest.mark.parametrize(
    ("member", "kind", "value"),
    [
        ("json", "json", SCHEMA),
        ("json", "json", json.dumps(SCHEMA)),
        ("regex", "regex", "a+"),
        ("choice", "choice", ["yes", "no"]),
        ("grammar", "grammar", 'start: "a"'),
    ],
)
def test_vllm_s_fields(member: str, kind: str, value: Any) -> None:
    outputs = {member: value}
    found = wanted(structured_outputs=outputs)
    assert found == (f"structured_outputs.{member}", kind, value, False)
    assert wanted(**{f"guided_{member}": value}) == (f"guided_{member}", kind, value, False)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"grammar": 'root ::= "a"'}, ("grammar", "grammar", 'root ::= "a"')),
        ({"grammar": {"type": "json", "value": SCHEMA}}, ("grammar.value", "json", SCHEMA)),
        ({"grammar": {"type": "regex", "value": "a+"}}, ("grammar.value", "regex", "a+")),
        (
            {"grammar": {"type": "json_schema", "value": {"name": "n", "schema": SCHEMA}}},
            ("grammar.value.schema", "json", SCHEMA),
        ),
        ({"json_schema": SCHEMA}, ("json_schema", "json", SCHEMA)),
        ({"json_schema": json.dumps(SCHEMA)}, ("json_schema", "json", json.dumps(SCHEMA))),
        ({"regex": "a+"}, ("regex", "regex", "a+")),
        ({"ebnf": 'root ::= "a"'}, ("ebnf", "grammar", 'root ::= "a"')),
    ],
)
def test_fields_of_other_servers(fields: dict[str, Any], expected: tuple[str, str, Any]) -> None:
    assert wanted(**fields) == (*expected, False)


def test_any_object_in_vllm_s_words() -> None:
    found = wanted(structured_outputs={"json_object": True})
    assert found == ("structured_outputs.json_object", "json", OBJECT, False)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"response_format": None},
        {"response_format": {"type": "text"}},
        {"structured_outputs": {}},
        {"structured_outputs": {"json_object": False}},
        {"guided_json": None},
        {"grammar": ""},
        {"structured_outputs": {"disable_fallback": False, "structural_tag": None}},
    ],
)
def test_no_format(fields: dict[str, Any]) -> None:
    assert wanted(**fields) is None


BAD: list[tuple[dict[str, Any], str]] = [
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": "structural_tag"}}, "response_format.type"),
    ({"response_format": {"type": "text", "value": "a"}}, "response_format.value"),
    ({"response_format": {"type": "regex"}}, "response_format.value"),
    ({"response_format": {"type": "regex", "value": SCHEMA}}, "response_format.value"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "text", "schema": {}}}, "response_format.schema"),
    (
        {"response_format": {"type": "json_object", "schema": {}, "value": {}}},
        "response_format.value",
    ),
    ({"response_format": {"type": "json_object", "schema": 5}}, "response_format.schema"),
    ({"response_format": {"type": "grammar"}}, "response_format.grammar"),
    ({"grammar": {"type": "regex"}}, "grammar.value"),
    ({"grammar": {"type": "json_schema", "value": {}}}, "grammar.value.schema"),
    ({"grammar": 5}, "grammar"),
    ({"grammar": "a", "regex": "a"}, "grammar"),
    (
        {"response_format": {"type": "json_object", "json_schema": {}}},
        "response_format.json_schema",
    ),
    (
        {"response_format": {"type": "json_schema", "value": {"name": "n"}}},
        "response_format.value.schema",
    ),
    (
        {"response_format": {"type": "json_schema", "value": {"schema": {}, "colour": 1}}},
        "response_format.value.colour",
    ),
    ({"response_format": named(schema=SCHEMA) | {"value": {}}}, "response_format.value"),
    (
        {"response_format": named(schema=SCHEMA) | {"strict": True}},
        "response_format.strict",
    ),
    ({"response_format": {"type": "json_object", "name": "n"}}, "response_format.name"),
    ({"response_format": {"type": "json_schema", "name": "n"}}, "response_format.json_schema"),
    ({"response_format": named(schema=5)}, "response_format.json_schema.schema"),
    ({"response_format": named(strict="yes")}, "response_format.json_schema.strict"),
    ({"response_format": named(colour="red")}, "response_format.json_schema.colour"),
    ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
    ({"structured_outputs": {"json": 5}}, "structured_outputs.json"),
    ({"structured_outputs": {"regex": ""}}, "structured_outputs.regex"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ({"structured_outputs": {"choice": ["a", 5]}}, "structured_outputs.choice[1]"),
    ({"structured_outputs": {"json": SCHEMA, "regex": "a"}}, "structured_outputs.regex"),
    ({"structured_outputs": {"regex": "a"}, "guided_regex": "a"}, "structured_outputs.regex"),
    ({"response_format": {"type": "json_object"}, "guided_choice": ["a"]}, "guided_choice"),
]


@pytest.mark.parametrize(("fields", "param"), BAD)
def test_wrong_shapes_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        wanted(**fields)
    assert caught.value.param == param


async def test_the_engine_is_told(api: Api) -> None:
    for fields, text in (
        ({"response_format": named(schema=SCHEMA)}, json_grammar(SCHEMA)),
        ({"guided_regex": "a+"}, regex_grammar("a+")),
        ({"guided_choice": ["a", "b"]}, choice_grammar(["a", "b"])),
        ({"guided_grammar": 'start: "a"'}, lark_grammar('start: "a"')),
    ):
        await api.answer(**fields)
        assert api.requests[-1].grammar == Grammar(text=text)  # its tokenizer has no markers
    await api.answer(guided_regex="a+", n=2)
    assert [request.grammar for request in api.requests[-2:]] == [
        Grammar(text=regex_grammar("a+"))
    ] * 2
    await api.answer(response_format={"type": "text"})
    assert api.requests[-1].grammar is None


UNIQUE = {"type": "array", "uniqueItems": True, "items": {"type": "string", "format": "path"}}


@pytest.mark.parametrize("stream", [False, True])
async def test_keywords_that_are_left_to_the_model_are_named(stream: bool, api: Api) -> None:
    for fields in (
        {"response_format": named(schema=UNIQUE)},
        {"response_format": named(schema=UNIQUE, strict=False)},
        {"json_schema": json.dumps(UNIQUE)},
        {"guided_json": UNIQUE, "n": 2},
    ):
        response = await api.post(stream=stream, **fields)
        assert response.status_code == 200, response.text
        assert response.headers["x-unenforced-keywords"] == "uniqueItems, format"
        text = json_grammar({"type": "array", "items": {"type": "string"}})
        assert api.requests[-1].grammar == Grammar(text=text)
    response = await api.post(stream=stream, response_format=named(schema=SCHEMA, strict=True))
    assert "x-unenforced-keywords" not in response.headers


async def test_a_strict_schema_leaves_nothing_to_the_model(api: Api) -> None:
    for fields, param in (
        (named(schema=UNIQUE, strict=True), "response_format.json_schema.schema"),
        (
            {"type": "json_schema", "name": "n", "schema": UNIQUE, "strict": True},
            "response_format.schema",
        ),
        (
            {"type": "json_schema", "value": {"schema": UNIQUE, "strict": True}},
            "response_format.value.schema",
        ),
    ):
        response = await api.post(response_format=fields)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, param)
        assert "uniqueItems" in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_json": "{"}, "guided_json"),
        ({"structured_outputs": {"json": {"not": {}}}}, "structured_outputs.json"),
        ({"response_format": named(schema={"not": {}})}, "response_format.json_schema.schema"),
        ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
    ],
)
async def test_what_cannot_be_enforced_never_reaches_the_engine(
    fields: dict[str, Any], param: str, api: Api
) -> None:
    response = await api.post(**fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert not api.requests
    if "ignore_eos" in fields:
        await api.answer(**fields, stop_token_ids=[END])


@pytest.fixture(scope="module")
def thinking_tokenizer(byte_tokenizer: Tokenizer) -> Tokenizer:
    tokenizer = Tokenizer.from_str(byte_tokenizer.to_str())
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("</think>"), AddedToken("[THINK]")])
    return tokenizer


@pytest.mark.parametrize(
    ("prompt", "may_think", "starts_after", "opens_with"),
    [
        ("hello", False, None, None),
        ("hello", True, "</think>", "<think>"),
        ("hello<think>\n", True, "</think>", None),
        ("hello<think>", False, "</think>", None),
        ("hello<think>\n\n</think>\n\n", True, None, None),
        ("hello<think>why", False, None, None),
        ("<think> said a user. assistant:", False, None, None),
        ("hello[THINK]", False, None, None),
    ],
)
async def test_where_the_format_begins(
    prompt: str,
    may_think: bool,
    starts_after: str | None,
    opens_with: str | None,
    thinking_tokenizer: Tokenizer,
    workers: Workers,
) -> None:
    formats = AnswerGrammars(thinking_tokenizer, workers)
    grammar = await formats.grammar(
        WantedFormat("guided_regex", "regex", "a"),
        thinking_tokenizer.encode(prompt).ids,
        may_think=may_think,
    )
    expected = [
        None if marker is None else thinking_tokenizer.token_to_id(marker)
        for marker in (starts_after, opens_with)
    ]
    assert [grammar.starts_after, grammar.opens_with] == expected


async def test_a_model_without_reasoning_begins_at_once(
    byte_tokenizer: Tokenizer, workers: Workers
) -> None:
    wanted_format = WantedFormat("guided_regex", "regex", "a")
    prompt = byte_tokenizer.encode("hello<think>").ids
    grammar = await AnswerGrammars(byte_tokenizer, workers).grammar(
        wanted_format, prompt, may_think=True
    )
    assert grammar == Grammar(text=regex_grammar("a"))


@pytest.mark.parametrize("decoder", [decoders.WordPiece(), decoders.Metaspace(), None])
async def test_a_tokenizer_without_bytes_is_refused(
    decoder: Any, byte_tokenizer: Tokenizer, workers: Workers
) -> None:
    tokenizer = Tokenizer.from_str(byte_tokenizer.to_str())
    tokenizer.decoder = decoder
    with pytest.raises(InvalidRequest, match="not made of bytes") as caught:
        await AnswerGrammars(tokenizer, workers).grammar(
            WantedFormat("guided_regex", "regex", "a"), [1], may_think=False
        )
    assert caught.value.param == "guided_regex"
    with pytest.raises(ValueError, match="decoder"):
        LLTokenizer(tokenizer.to_str())


async def test_llama_2_s_tokenizer_is_made_of_bytes(
    piece_tokenizer: Tokenizer, workers: Workers
) -> None:
    wanted_format = WantedFormat("guided_regex", "regex", "a")
    assert await AnswerGrammars(piece_tokenizer, workers).grammar(
        wanted_format, [1], may_think=False
    )
    assert LLTokenizer(piece_tokenizer.to_str()).vocab_size >= piece_tokenizer.get_vocab_size()


async def test_reasoning_is_allowed_unless_it_is_switched_off(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    original = AnswerGrammars.grammar

    async def grammar(self: AnswerGrammars, *arguments: Any, may_think: bool) -> Grammar:
        asked.append(may_think)
        return await original(self, *arguments, may_think=may_think)

    monkeypatch.setattr(AnswerGrammars, "grammar", grammar)
    for fields in (
        {},  # the template of these tests has the switch
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning_effort": "none"},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"reasoning_effort": "low"},
    ):
        await api.answer(guided_regex="a", **fields)
    assert asked == [True, False, False, True, True]
