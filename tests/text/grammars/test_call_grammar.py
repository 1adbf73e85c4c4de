"""What a grammar of calls lets a model write is read back as calls that their schemas allow."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tokenizers import Tokenizer

from millstream.text.grammars.answer_formats import (
    CHECKED_MARK,
    GrammarChecker,
    GrammarError,
    json_grammar,
    regex_grammar,
)
from millstream.text.grammars.call_grammar import CallableTool, arguments_schema, calls_grammar
from millstream.text.grammars.tagged_values import CannotWrite
from millstream.text.parsing.answer_reader import AnswerReader
from millstream.text.parsing.call_families import CALL_FAMILIES
from millstream.text.parsing.detection import NONE, detect
from millstream.text.parsing.grammar_hold import GrammarHold
from millstream.text.parsing.output import ParsedAnswer, join, parse_whole
from tests.text.tool_writer import (
    MARKS,
    Writer,
    callable_tools,
    is_valid,
    marked,
    random_tools,
    tokens_of,
)

WRITINGS = {family.name: family.writings for family in CALL_FAMILIES}
CHOICES = {
    f"{family.name} {writing.sign}".strip(): (family.name, writing)
    for family in CALL_FAMILIES
    for writing in family.writings
}


def choice_of(name: str) -> AnswerReader:
    """How a model is read whose chat template writes calls in one of the ways."""
    if name == "json":
        return detect("", (), reasoning="think", tools=NONE).for_json_calls
    format_name, way = CHOICES[name]
    reasoning = "harmony" if format_name == "harmony" else "think"
    choice = detect(way.sign, (), reasoning=reasoning, tools=format_name)
    assert choice.writing == way
    return choice


@pytest.fixture(scope="module")
def writers(byte_tokenizer: Tokenizer) -> list[tuple[Tokenizer, Writer]]:
    """Without markers that are tokens, with all of them, and with some."""
    some = random.Random(0).sample(MARKS, len(MARKS) // 2)
    ways = (byte_tokenizer, marked(byte_tokenizer), marked(byte_tokenizer, some))
    return [(one, Writer(one)) for one in ways]


def grammar_of(choice: AnswerReader, tools: Any, tokens: dict[str, int], **options: Any) -> str:
    assert choice.writing is not None
    return calls_grammar(choice.writing, callable_tools(tools), tokens, **options)


def read(choice: AnswerReader, pieces: list[str], tools: Any, held: GrammarHold) -> ParsedAnswer:
    """The answer, which is the same whole and in pieces."""
    whole = parse_whole(choice.parser(prompt="", tools=tools, hold=held), "".join(pieces))
    parser = choice.parser(prompt="", tools=tools, hold=held)
    deltas = [delta for piece in pieces for delta in parser.push(piece)]
    assert join([*deltas, *parser.finish()]) == whole
    return whole


def check_calls(said: ParsedAnswer, tools: Any) -> None:
    schemas = {tool.name: tool.schema for tool in callable_tools(tools)}
    for call in said.calls:
        schema: Any = schemas[call.name]
        assert is_valid(json.loads(call.arguments), schema, schema), call


def writable_tools(choice: AnswerReader, source: random.Random) -> Any:
    """Random tools that this format can write; JSON can write all."""
    while True:
        tools = random_tools(source)
        try:
            grammar_of(choice, tools, {}, is_forced=True)
        except CannotWrite:
            assert choice.writing is not None
            assert choice.writing.values is not None
        else:
            return tools


@pytest.mark.parametrize("name", [*CHOICES, "json"])
@pytest.mark.parametrize("seed", range(4))
def test_forced_calls_are_read_back(
    name: str, seed: int, writers: list[tuple[Tokenizer, Writer]]
) -> None:
    choice, source = choice_of(name), random.Random(seed)
    tokenizer, writer = writers[seed % 3]
    tools = writable_tools(choice, source)
    most = source.choice([1, 3])
    grammar = grammar_of(choice, tools, tokens_of(tokenizer), is_forced=True, max_calls=most)
    for _ in range(4):
        said = read(choice, writer.write(grammar, source), tools, GrammarHold.ANSWER)
        assert 1 <= len(said.calls) <= most
        assert not said.content
        assert not said.reasoning or name == "harmony"
        check_calls(said, tools)


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("seed", range(4))
def test_free_calls_are_right_if_they_come(
    name: str, seed: int, writers: list[tuple[Tokenizer, Writer]]
) -> None:
    choice, source = choice_of(name), random.Random(seed)
    tokenizer, writer = writers[seed % 3]
    tools = writable_tools(choice, source)
    grammar = grammar_of(choice, tools, tokens_of(tokenizer), is_forced=False, max_calls=3)
    num_calls, num_texts = 0, 0
    for _ in range(8):
        said = read(choice, writer.write(grammar, source), tools, GrammarHold.CALLS)
        check_calls(said, tools)
        num_calls += len(said.calls)
        num_texts += bool(said.content)
    assert num_calls or num_texts


CLOSED = {"additionalProperties": False}


@pytest.mark.parametrize(
    ("parameters", "schema"),
    [
        (None, {"type": "object", "properties": {}} | CLOSED),
        ({}, {"type": "object"}),
        ({"type": "object"}, {"type": "object"}),
        ({"type": ["null", "object"]}, {"type": "object"}),
        ({"properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}} | CLOSED),
        (
            {"properties": {"a": {}}, "required": ["b"]},
            {"type": "object", "properties": {"a": {}}, "required": ["b"]},
        ),
        (
            {"properties": {}, "additionalProperties": {"type": "null"}},
            {"type": "object", "properties": {}, "additionalProperties": {"type": "null"}},
        ),
        ({"$ref": "#/$defs/A"}, {"type": "object", "$ref": "#/$defs/A"}),
        ({"properties": {}, "anyOf": []}, {"type": "object", "properties": {}, "anyOf": []}),
        ({"properties": 5}, {"type": "object", "properties": 5}),
    ],
)
def test_arguments_are_an_object_that_is_closed_where_it_can_be(
    parameters: Any, schema: dict[str, Any]
) -> None:
    before = json.dumps(parameters)
    assert arguments_schema(parameters) == schema
    assert json.dumps(parameters) == before


@pytest.mark.parametrize("kind", ["array", "string", ["null"], None])
def test_arguments_that_are_no_object(kind: Any) -> None:
    with pytest.raises(GrammarError, match="object"):
        arguments_schema({"type": kind})


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": TEXT | {"pattern": "x"}}},
        {"properties": {"a": TEXT | {"format": "date"}}},
        {"properties": {"a": {"anyOf": [TEXT | {"maxLength": 3}, {"type": "integer"}]}}},
        {"properties": {"a": {"type": ["string", "array"]}}},
        {"properties": {"a": {"allOf": [TEXT, {"maxLength": 3}]}}},
        {"properties": {"a": {"$ref": "#/$defs/A", "maxLength": 3}}, "$defs": {"A": TEXT}},
        {"properties": {"a": {"enum": ["x</arg_value>"]}}},
        {"properties": {"a": {"enum": ["x\n"]}}},
        {"properties": {"a": {"type": "string", "enum": [1]}}},
        {"properties": {"a b": TEXT}},
        {"properties": {"a": TEXT}, "required": ["b"]},
        {"properties": {"a": TEXT}, "minProperties": 1},
        {"properties": {"a": TEXT}, "patternProperties": {"^x": TEXT}},
    ],
)
def test_what_tags_cannot_say_is_not_written_in_tags(schema: dict[str, Any]) -> None:
    tools = [CallableTool("f", schema)]
    (glm,) = WRITINGS["glm"]
    with pytest.raises(CannotWrite):
        calls_grammar(glm, tools, {}, is_forced=True)
    (hermes,) = WRITINGS["hermes"]
    assert calls_grammar(hermes, tools, {}, is_forced=True)


def test_values_whose_white_space_the_reader_drops_have_none_at_their_ends(
    byte_tokenizer: Tokenizer,
) -> None:
    (way,) = WRITINGS["qwen3-coder"]
    tools = [CallableTool("f", {"properties": {"a": {"type": "string"}}, "required": ["a"]})]
    grammar = calls_grammar(way, tools, {}, is_forced=True, max_calls=1, strips=True)
    writer, source = Writer(byte_tokenizer), random.Random(0)
    for _ in range(10):
        text = "".join(writer.write(grammar, source))
        value = text.partition("<parameter=a>\n")[2].partition("\n</parameter>")[0]
        assert value == value.strip()


@pytest.mark.parametrize("name", [*CHOICES, "json"])
def test_what_is_checked_over_bytes_is_what_the_model_gets(
    name: str, byte_tokenizer: Tokenizer
) -> None:
    """The same grammar but for its tokens, so that what passes the check can be compiled."""
    choice, tools = choice_of(name), random_tools(random.Random(1))[:1]
    tokens = tokens_of(marked(byte_tokenizer))
    for is_forced in (True, False):
        checked = grammar_of(
            choice, tools, dict.fromkeys(tokens, CHECKED_MARK), is_forced=is_forced
        )
        GrammarChecker().check(checked)
        real = grammar_of(choice, tools, tokens, is_forced=is_forced)
        for token in set(tokens.values()):
            real = real.replace(f"<[{token}]>", f"<[{CHECKED_MARK}]>")
        assert checked == real


def test_an_answer_that_begins_like_a_call_is_one(byte_tokenizer: Tokenizer) -> None:
    """Llama writes calls as bare JSON, so free text cannot begin with a brace."""
    choice = choice_of("llama3")
    tools = [{"type": "function", "function": {"name": "now"}}]
    grammar = grammar_of(choice, tools, {}, is_forced=False, max_calls=1)
    writer = Writer(byte_tokenizer)
    begun = {"".join(writer.write(grammar, random.Random(seed))).lstrip()[:1] for seed in range(60)}
    assert len(begun) > 10
    for seed in range(200):
        text = "".join(writer.write(grammar, random.Random(seed)))
        if text.lstrip().startswith("{"):
            assert read(choice, [text], tools, GrammarHold.CALLS).calls


def test_an_argument_may_read_like_a_marker(byte_tokenizer: Tokenizer) -> None:
    """Also where no other text can come, which llguidance would cut into the wrong tokens."""
    tokenizer, choice = marked(byte_tokenizer), choice_of("hermes")
    properties = {"<arg_key>": {"const": "</tool_call>"}}
    parameters = {"properties": properties, "required": ["<arg_key>"]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    grammar = grammar_of(choice, tools, tokens_of(tokenizer), is_forced=True, max_calls=1)
    said = read(
        choice, Writer(tokenizer).write(grammar, random.Random(0)), tools, GrammarHold.ANSWER
    )
    assert json.loads(said.calls[0].arguments) == {"<arg_key>": "</tool_call>"}


def test_too_many_characters() -> None:
    (hermes,) = WRITINGS["hermes"]
    schema = {"properties": {"a" * 60_000: {}}}
    with pytest.raises(GrammarError, match="characters"):
        calls_grammar(hermes, [CallableTool(f"f{i}", schema) for i in range(5)], {}, is_forced=True)


ANSWERS = {
    "object": json_grammar(
        {"properties": {"answer": {}}, "required": ["answer"], "type": "object"} | CLOSED
    ),
    "array": json_grammar({"type": "array", "items": {"enum": ["<tool_call>", "{"]}}),
    "pattern": regex_grammar("[a-z]{1,9}"),
}
FORMS = {
    "object": lambda text: set(json.loads(text)) <= {"answer"},
    "array": lambda text: set(json.loads(text)) <= {"<tool_call>", "{"},
    "pattern": lambda text: text.isalpha(),
}


@pytest.mark.parametrize("form", ANSWERS)
@pytest.mark.parametrize("name", [*CHOICES, "json"])
def test_an_answer_is_calls_or_has_its_form(
    name: str, form: str, writers: list[tuple[Tokenizer, Writer]]
) -> None:
    choice = choice_of(name)
    num_calls, num_texts = 0, 0
    for seed in range(12):
        source = random.Random(seed)
        tokenizer, writer = writers[seed % 3]
        tools = writable_tools(choice, source)
        grammar = grammar_of(
            choice,
            tools,
            tokens_of(tokenizer),
            is_forced=False,
            max_calls=2,
            answer=ANSWERS[form],
        )
        said = read(choice, writer.write(grammar, source), tools, GrammarHold.EITHER)
        check_calls(said, tools)
        assert bool(said.calls) != bool(said.content)
        assert not said.content or FORMS[form](said.content)
        num_calls += bool(said.calls)
        num_texts += bool(said.content)
    assert num_calls + num_texts == 12
    assert num_texts
