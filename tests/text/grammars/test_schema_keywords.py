"""What of a schema is left to the model: what it narrows is gone, what it allows is not."""

from __future__ import annotations

import datetime
import decimal
import enum
import ipaddress
import json
import pathlib
import uuid
from typing import Annotated, Any, Literal

import pydantic
import pytest

from millstream.text.grammars.answer_formats import GrammarError, json_grammar
from millstream.text.grammars.keyword_rules import is_too_rich
from millstream.text.grammars.schema_keywords import enforceable
from tests.text.grammars.test_answer_formats import CHECKER, is_match


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(pydantic.BaseModel):
    x: int
    label: str | None = None


class Line(pydantic.BaseModel):
    kind: Literal["line"]
    end: Point


class Dot(pydantic.BaseModel):
    kind: Literal["dot"]
    at: Point


ORDINARY: list[tuple[Any, Any, list[str]]] = [
    (int, 5, []),
    (float, 1.5, []),
    (str, "a", []),
    (bool, True, []),
    (None, None, []),
    (list[int], [1, 2], []),
    (dict[str, int], {"a": 1}, []),
    (set[int], {1, 2}, ["uniqueItems"]),
    (frozenset[str], frozenset({"a"}), ["uniqueItems"]),
    (tuple[int, str], (1, "a"), []),
    (tuple[int, ...], (1, 2, 3), []),
    (pathlib.Path, pathlib.Path("/a/b"), ["format"]),
    (bytes, b"ab", ["format"]),
    (pydantic.SecretStr, pydantic.SecretStr("x"), ["format"]),
    (uuid.UUID, uuid.UUID(int=5), []),
    (datetime.datetime, datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), []),
    (datetime.date, datetime.date(2026, 1, 2), []),
    (datetime.time, datetime.time(3, 4, 5, tzinfo=datetime.UTC), []),
    (datetime.timedelta, datetime.timedelta(days=1, hours=2), []),
    (decimal.Decimal, decimal.Decimal("1.5"), []),
    (Colour, Colour.RED, []),
    (Literal["a", 1], "a", []),
    (int | str, "a", []),
    (int | None, None, []),
    (Point, Point(x=1), []),
    (list[Point], [Point(x=1, label="a")], []),
    (ipaddress.IPv4Address, ipaddress.IPv4Address("10.0.0.1"), []),
    (ipaddress.IPv4Network, ipaddress.IPv4Network("10.0.0.0/8"), ["format"]),
    (pydantic.HttpUrl, pydantic.HttpUrl("https://a.example/b"), []),
    (Annotated[str, pydantic.StringConstraints(pattern=r"^\S+@\S+\.\S+$")], "a@b.c", []),
    (Annotated[int, pydantic.Field(ge=1, lt=10, multiple_of=3)], 6, []),
    (Annotated[str, pydantic.Field(min_length=1, max_length=3)], "ab", []),
    (
        Annotated[Line | Dot, pydantic.Field(discriminator="kind")],
        Dot(kind="dot", at=Point(x=1)),
        [],
    ),
    (Any, [1], []),
]


@pytest.mark.parametrize(("kind", "value", "left"), ORDINARY, ids=[str(o[0]) for o in ORDINARY])
def test_ordinary_types_of_python_are_schemas(kind: Any, value: Any, left: list[str]) -> None:
    model = pydantic.create_model("Answer", field=(kind, ...))
    schema = enforceable(model.model_json_schema())
    assert list(schema.keywords) == left
    text = model.model_construct(field=value).model_dump_json()
    if kind is pydantic.SecretStr:
        text = '{"field": "x"}'
    grammar = json_grammar(schema.schema)
    assert is_match(grammar, text), text
    assert not is_match(grammar, '{"other": 1}')


STRING, OPEN = {"type": "string"}, {"type": "object"}
A = {"type": "object", "properties": {"k": {"const": "a"}}, "required": ["k"]}
B = {"type": "object", "properties": {"k": {"enum": ["b", "c"]}}, "required": ["k"]}

NARROWING: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "array", "uniqueItems": True}, "uniqueItems", "[1, 2]"),
    ({"type": "string", "not": {"const": "a"}}, "not", '"b"'),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf", "1.5"),
    ({"type": "string", "format": "idn-email"}, "format", '"a@b"'),
    ({"type": "array", "contains": {"type": "integer"}}, "contains", "[1]"),
    ({"if": STRING, "then": {"minLength": 3}}, "if", '"abc"'),
    (OPEN | {"dependentRequired": {"a": ["b"]}}, "dependentRequired", "{}"),
    (OPEN | {"dependentSchemas": {"a": {"required": ["b"]}}}, "dependentSchemas", "{}"),
    (OPEN | {"dependencies": {"a": ["b"]}}, "dependencies", "{}"),
    (OPEN | {"propertyNames": {"maxLength": 2}}, "propertyNames", '{"ab": 1}'),
    (
        OPEN | {"allOf": [OPEN], "unevaluatedProperties": False},
        "unevaluatedProperties",
        "{}",
    ),
    (
        {"type": "array", "items": STRING, "unevaluatedItems": False},
        "unevaluatedItems",
        '["a"]',
    ),
    (OPEN | {"properties": {"a": {}}, "minProperties": 1}, "minProperties", '{"a": 1}'),
    (OPEN | {"properties": {"a": {}}, "maxProperties": 1}, "maxProperties", '{"a": 1}'),
    ({"type": "string", "pattern": "^(?!x)a*$"}, "pattern", '"aa"'),
    ({"type": "string", "pattern": r"^(a)\1$"}, "pattern", '"aa"'),
    ({"$dynamicRef": "#node"}, "$dynamicRef", "1"),
    (
        OPEN | {"patternProperties": {"^(?!x)": STRING}, "additionalProperties": False},
        "patternProperties",
        '{"a": "b"}',
    ),
]


@pytest.mark.parametrize(("schema", "keyword", "right"), NARROWING)
def test_what_only_narrows_is_left_to_the_model(
    schema: dict[str, Any], keyword: str, right: str
) -> None:
    with pytest.raises(GrammarError):
        CHECKER.check(json_grammar(schema))
    loose = enforceable({"type": "object", "properties": {"f": schema}, "required": ["f"]})
    assert loose.unenforced[0] == (keyword, f"properties.f.{keyword}")
    grammar = json_grammar(loose.schema)
    assert is_match(grammar, f'{{"f": {right}}}')
    assert not is_match(grammar, "{}"), "the rest is enforced"


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "array", "uniqueItems": False}, "[1, 1]", "1"),
        ({"type": "array", "uniqueItems": True, "maxItems": 1}, "[1]", "[1, 1]"),
        ({"type": "array", "minContains": 0}, "[]", "1"),
        ({"type": "array", "contains": STRING, "minContains": 0}, "[1]", "1"),
        ({"type": "array", "maxContains": 0}, "[1]", "1"),
        ({"type": "string", "not": False}, '"a"', "1"),
        (OPEN | {"propertyNames": {"type": "string"}}, '{"a": 1}', "1"),
        (OPEN | {"dependentRequired": {}}, "{}", "1"),
        (OPEN | {"minProperties": 0, "properties": {"a": STRING}}, "{}", '{"a": 1}'),
        ({"if": STRING, "type": "string"}, '"a"', "1"),
        ({"then": STRING, "type": "integer"}, "1", '"a"'),
        (OPEN | {"unevaluatedProperties": True}, '{"a": 1}', "1"),
        (OPEN | {"unevaluatedProperties": False}, "{}", '{"a": 1}'),
        ({"type": "array", "prefixItems": [STRING], "unevaluatedItems": False}, '["a"]', '["a",1]'),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, "4", "3"),
        ({"type": "integer", "format": "int32"}, "4", '"a"'),
        (OPEN | {"properties": {"a": {"not": {}}, "b": {}}}, '{"b": 1}', '{"a": 1}'),
        ({"oneOf": [{"const": 1}, {"const": 2}]}, "2", "3"),
        ({"oneOf": [A, B]}, '{"k": "c"}', '{"k": "d"}'),
        (
            {"oneOf": [STRING, {"type": ["integer", "null"]}], "anyOf": [{"minLength": 1}]},
            '"a"',
            "1.5",
        ),
        (
            {"oneOf": [OPEN | {"required": ["z"]}, OPEN | {"additionalProperties": False}]},
            "{}",
            "1",
        ),
        (
            {
                "oneOf": [{"$ref": "#/$defs/A"}, {"allOf": [{"$ref": "#/$defs/B"}]}],
                "$defs": {"A": A, "B": B, "unused": {"not": {"type": "string"}}},
            },
            '{"k": "a"}',
            "1",
        ),
        ({"enum": [{"not": 1, "uniqueItems": True}]}, '{"not": 1, "uniqueItems": true}', "1"),
        (OPEN | {"properties": {"not": STRING}}, '{"not": "a"}', '{"not": 1}'),
    ],
)
def test_what_asks_for_nothing_or_can_be_said_otherwise_is_enforced(
    schema: dict[str, Any], right: str, wrong: str
) -> None:
    for sent in (schema, json.dumps(schema)):
        loose = enforceable(sent)
        assert loose.unenforced == ()
        grammar = json_grammar(loose.schema)
        assert is_match(grammar, right)
        assert not is_match(grammar, wrong)


@pytest.mark.parametrize(
    "branches",
    [
        [{"type": "integer"}, {"type": "number"}],
        [{"const": 1}, {"const": 1.0}],
        [STRING, {}],
        [A, OPEN],
        [A, A],
        [{"$ref": "#"}, STRING],
        [STRING | {"enum": [str(i)]} for i in range(500)],
    ],
)
def test_branches_that_may_overlap(branches: list[Any]) -> None:
    assert enforceable({"oneOf": branches}).keywords == ("oneOf",)


def test_only_definitions_that_are_referred_to_count() -> None:
    definitions = {
        "a": {"type": "array", "uniqueItems": True},
        "b": {"properties": {"x": {"$ref": "#/$defs/c"}}},
        "c": {"not": {"type": "string"}},
    }
    for name, left in (("a", ["uniqueItems"]), ("b", ["not"]), ("c", ["not"])):
        schema = {"$defs": definitions, "properties": {"p": {"$ref": f"#/$defs/{name}"}}}
        assert list(enforceable(schema).keywords) == left


@pytest.mark.parametrize("schema", ["{", "[]", "5", [], {"type": "array", "uniqueItems": 1}])
def test_what_is_no_schema_is_left_as_it_is(schema: Any) -> None:
    assert enforceable(schema) == (schema, ())


def test_depth_is_no_matter() -> None:
    deep: dict[str, Any] = {"uniqueItems": True}
    for _ in range(5000):
        deep = {"items": deep}
    assert enforceable(deep) == (deep, ())


@pytest.mark.parametrize(
    ("pattern", "is_rich"),
    [
        (r"(?=a)", True),
        (r"(?<!a)b", True),
        (r"\bword\b", True),
        (r"(?P<n>a)(?P=n)", True),
        (r"\\1", False),
        (r"[\b(?=]", False),
        (r"(?<n>a)|(?:b)", False),
        (r"\(?=", False),
    ],
)
def test_patterns_that_need_to_go_back(pattern: str, is_rich: bool) -> None:
    assert is_too_rich(pattern) == is_rich
