"""What a client may ask an answer to look like, and what is refused before it costs anything."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from millstream.text.grammars import answer_formats as module
from millstream.text.grammars.answer_formats import (
    MAX_CHARACTERS,
    GrammarChecker,
    GrammarError,
    choice_grammar,
    json_grammar,
    lark_grammar,
    regex_grammar,
)

CHECKER = GrammarChecker()


def is_match(grammar: str, text: str) -> bool:
    """Whether the grammar takes this text and can end there."""
    CHECKER.check(grammar)
    tokenizer = LLTokenizer(TokenizerWrapper(module._Bytes()), eos_token=256)
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    return bool(matcher.consume_tokens(list(text.encode()))) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("pattern", "right", "wrong"),
    [
        ("a/b", ["a/b"], ["a", "ab"]),
        (r"a\/b", ["a/b"], [r"a\/b"]),
        ("^ab$", ["ab"], ["xab", "^ab$"]),
        (r"\d+", ["42"], ["٤", "x"]),
        ('a/ | "b', ["a/ ", ' "b'], ["b", "a"]),
        ("a\nb", ["a\nb"], ["ab"]),
        (r"\\", ["\\"], [""]),
        ("", [""], ["a"]),
    ],
)
def test_patterns(pattern: str, right: list[str], wrong: list[str]) -> None:
    grammar = regex_grammar(pattern)
    assert all(is_match(grammar, text) for text in right)
    assert not any(is_match(grammar, text) for text in wrong)


@pytest.mark.parametrize(
    ("grammar", "right", "wrong"),
    [
        ('root ::= start\nstart ::= "a"', ["a"], ["start"]),
        (
            'root ::= "start" start0 start # start\nstart ::= [start]\nstart0 ::= "-"',
            ["start-t"],
            [],
        ),
        ('start ::= "a"\nroot ::= start start', ["aa"], ["a"]),
    ],
)
def test_gbnf_with_a_rule_of_the_name_start(
    grammar: str, right: list[str], wrong: list[str]
) -> None:
    made = lark_grammar(grammar)
    assert all(is_match(made, text) for text in right)
    assert not any(is_match(made, text) for text in wrong)


def test_hundreds_of_properties_are_followed() -> None:
    properties = {f"p{index}": {} for index in range(400)}
    grammar = json_grammar({"properties": properties, "additionalProperties": False})
    assert is_match(grammar, json.dumps(dict.fromkeys(properties, 1)))


def test_choices() -> None:
    choices = ["yes", "yesterday", 'say "hi"\\', "line\nbreak", "ü😀", "/x/", "'", "\x00", "%x"]
    grammar = choice_grammar(choices)
    assert all(is_match(grammar, text) for text in choices)
    assert not any(is_match(grammar, text) for text in ["ye", "yest", "yesyes", "", "x"])


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ('{"b":1,"a":"x"}', True),
        ('{"b": 1, "a": "x"}', True),
        ('{\n  "b": 1,\n  "a": "x"\n}', True),
        ('{ "b" : 1 , "a" : "x" }', True),
        ('{"b":  1,"a":"x"}', False),
        ('{\n\n"b":1,"a":"x"}', False),
        ('{"a":"x","b":1}', False),
        ('{"b":1}', False),
        ('{"b":1,"a":"x"}\n', False),
        ('{"b":1,"a":"x"', False),
    ],
)
def test_json_in_the_order_of_the_schema(text: str, is_right: bool) -> None:
    properties = {"b": {"type": "integer"}, "a": {"type": "string"}}
    schema = {"type": "object", "properties": properties, "required": ["a", "b"]}
    assert is_match(json_grammar(schema), text) is is_right
    assert json_grammar(json.dumps(schema)) == json_grammar(schema)


def test_grammars_in_both_notations() -> None:
    for grammar in ('start: "a" B\nB: /[0-9]+/', 'root ::= "a" b\nb ::= [0-9]+'):
        assert is_match(lark_grammar(grammar), "a17")
        assert not is_match(lark_grammar(grammar), "a")


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


REFUSED: list[tuple[Callable[[Any], str], Any, str]] = [
    (json_grammar, {"type": "stsring"}, "stsring"),
    (json_grammar, {"not": {"type": "string"}}, "not"),
    (json_grammar, {"oneOf": [{"type": "integer"}, {"type": "number"}]}, "may overlap"),
    (json_grammar, {"type": "array", "uniqueItems": True}, "uniqueItems"),
    (json_grammar, {"properties": {"a": {"if": {}}}}, "if"),
    (json_grammar, {"type": "string", "format": "nonsense"}, "nonsense"),
    (json_grammar, {"type": "string", "pattern": "("}, "unclosed"),
    (json_grammar, {"$ref": "http://127.0.0.1:9/x.json"}, "does not fetch"),
    (json_grammar, {"$ref": "#/$defs/nothing"}, "nothing"),
    (json_grammar, {"$ref": "#"}, "nothing matches"),
    (json_grammar, {"enum": []}, "Unsatisfiable"),
    (json_grammar, {"x-guidance": {"lenient": True}, "not": {}}, "x-guidance"),
    (json_grammar, {"properties": {"a": {"x-guidance": {"lenient": True}, "not": {}}}}, "not"),
    (json_grammar, {"properties": {f"p{i}": {} for i in range(600)}}, "too much may come next"),
    (json_grammar, deep(150), "recursion"),
    (json_grammar, deep(3000), "nested"),
    (json_grammar, "[1]", "object"),
    (json_grammar, "true", "object"),
    (json_grammar, "{", "not JSON"),
    (json_grammar, '{"minimum": NaN}', "expected"),
    (json_grammar, r'{"const": "\ud800"}', "not JSON"),
    (json_grammar, "[" * 60_000, "nested"),
    (json_grammar, {"enum": ["x" * MAX_CHARACTERS]}, "characters"),
    (regex_grammar, "(", "unclosed"),
    (regex_grammar, "[", "unclosed"),
    (regex_grammar, "(?=a)b", "look-around"),
    (regex_grammar, r"(a)\1", "backreferences"),
    (regex_grammar, "a\\", "backslash"),
    (regex_grammar, "[a&&b]", "nothing matches"),
    (regex_grammar, "x" * (MAX_CHARACTERS + 1), "characters"),
    (lark_grammar, "start: nowhere", "nowhere"),
    (lark_grammar, "hello", "Expected"),
    (lark_grammar, 'start: start "a"', "nothing matches"),
    (lark_grammar, "start: <|im_end|>", "special token"),
    (lark_grammar, "start: " + "(" * 20_000 + '"a"' + ")" * 20_000, "nested"),
    (lark_grammar, 'root ::= "a', "GBNF"),
    (lark_grammar, "root ::= a", "GBNF grammar: Rule 'a' not found"),
    (lark_grammar, 'x ::= "a"', "GBNF grammar: No 'root' rule"),
    (lark_grammar, 'root ::= "a\\', "GBNF"),
    (lark_grammar, f'root ::= "a"{{{"9" * 5000}}}', "GBNF"),
    (lark_grammar, "root ::= " + "(" * 20_000 + '"a"', "GBNF"),
    (choice_grammar, ["x" * 1000] * 100, "characters"),
]


@pytest.mark.parametrize(
    ("read", "value", "reason"),
    REFUSED,
    ids=[f"{read.__name__}-{index}" for index, (read, *_) in enumerate(REFUSED)],
)
def test_refusals_say_why(read: Callable[[Any], str], value: Any, reason: str) -> None:
    with pytest.raises(GrammarError, match=reason) as caught:
        CHECKER.check(read(value))
    assert len(str(caught.value)) < 400


def nested_unions(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"anyOf": [{"type": "object", "properties": {"a": schema}}, deep(1), schema]}
    return schema


BOMBS: list[tuple[Callable[[Any], str], Any]] = [
    (regex_grammar, "(x{1,1000}){1,1000}"),
    (regex_grammar, "(a+)+b"),
    (regex_grammar, "(.{1,500}y?){1,500}z"),
    (regex_grammar, "|".join(f"w{index}x*" for index in range(7000))),
    (choice_grammar, [f"word {index}" for index in range(1024)]),
    (json_grammar, {"enum": [f"value {index}" for index in range(4000)]}),
    (json_grammar, nested_unions(9)),
    (json_grammar, {"type": "string", "pattern": "(x{1,1000}){1,1000}"}),
    (json_grammar, {"type": "array", "maxItems": 10**9, "minItems": 10**6}),
]


@pytest.mark.parametrize(
    ("read", "value"),
    BOMBS,
    ids=[f"{read.__name__}-{index}" for index, (read, _) in enumerate(BOMBS)],
)
def test_no_grammar_takes_long_to_check(read: Callable[[Any], str], value: Any) -> None:
    """Accepted or refused, but soon: seconds would show that a limit is missing."""
    start = time.process_time()
    with suppress(GrammarError):
        CHECKER.check(read(value))
    assert time.process_time() - start < 5
