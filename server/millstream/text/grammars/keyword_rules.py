"""What becomes of each keyword of a JSON Schema that llguidance does not know. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any

# Formats that llguidance has a pattern for.
_FORMATS = {
    *("date-time", "time", "date", "duration", "email", "hostname"),
    *("ipv4", "ipv6", "uri", "uuid", "unknown"),
}
# What applies further schemas to the same value.
_APPLICATORS = {
    *("allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "$recursiveRef"),
    *("if", "then", "else", "dependentSchemas", "dependencies", "contains"),
}
_CLOSING = {"unevaluatedProperties": "additionalProperties", "unevaluatedItems": "items"}
# Look-around, atomic groups, conditions, word boundaries, references back. Escapes and classes are
# passed over.
_TOO_RICH = re.compile(r"(\(\?(?:<?[=!]|P=|>|\()|\\[bB1-9k])|\\.|\[\^?\]?(?:\\.|[^]\\])*\]", re.S)


class Fate(Enum):
    """What becomes of a keyword."""

    KEPT = auto()
    EMPTY = auto()  # left out: it asks for nothing
    SAID_OTHERWISE = auto()  # by `closing_keyword()`
    LEFT_TO_THE_MODEL = auto()  # left out: it narrows


def fate_of(keyword: str, schema: Mapping[str, Any]) -> Fate:
    """What becomes of this keyword of a schema."""
    rule = _RULES.get(keyword)
    return Fate.KEPT if rule is None else rule(schema[keyword], schema)


def closing_keyword(keyword: str) -> str | None:
    """The keyword that says the same of what is not named, where nothing else names anything."""
    return _CLOSING.get(keyword)


def is_too_rich(pattern: Any) -> bool:
    """Whether a pattern has what only engines that go back can follow."""
    return isinstance(pattern, str) and any(match[1] for match in _TOO_RICH.finditer(pattern))


def _is_anything(value: Any) -> bool:
    return value is True or value == {}


def _left(is_left: object) -> Fate:
    return Fate.LEFT_TO_THE_MODEL if is_left else Fate.EMPTY


def _unique(value: Any, schema: Mapping[str, Any]) -> Fate:
    if not isinstance(value, bool):
        return Fate.KEPT
    most = schema.get("maxItems")
    return _left(value and not (isinstance(most, int) and most <= 1))


def _not(value: Any, schema: Mapping[str, Any]) -> Fate:
    return _left(value is not False) if isinstance(value, bool | Mapping) else Fate.KEPT


def _contains(value: Any, schema: Mapping[str, Any]) -> Fate:
    return _left(schema.get("minContains") != 0 or "maxContains" in schema)


def _min_contains(value: Any, schema: Mapping[str, Any]) -> Fate:
    return _left("contains" in schema and value not in (0, 1))


def _max_contains(value: Any, schema: Mapping[str, Any]) -> Fate:
    return _left("contains" in schema)


def _if(value: Any, schema: Mapping[str, Any]) -> Fate:
    return _left("then" in schema or "else" in schema)


def _part_of_if(value: Any, schema: Mapping[str, Any]) -> Fate:
    return Fate.EMPTY  # alone it says nothing, else `if` is reported


def _per_name(value: Any, schema: Mapping[str, Any]) -> Fate:
    return _left(value != {}) if isinstance(value, Mapping) else Fate.KEPT


def _names(value: Any, schema: Mapping[str, Any]) -> Fate:
    return _left(not _is_anything(value) and value != {"type": "string"})


def _unevaluated(keyword: str) -> Callable[[Any, Mapping[str, Any]], Fate]:
    def rule(value: Any, schema: Mapping[str, Any]) -> Fate:
        if _is_anything(value):
            return Fate.EMPTY
        is_alone = _CLOSING[keyword] not in schema and _APPLICATORS.isdisjoint(schema)
        return Fate.SAID_OTHERWISE if is_alone else Fate.LEFT_TO_THE_MODEL

    return rule


def _narrowing(value: Any, schema: Mapping[str, Any]) -> Fate:
    return Fate.LEFT_TO_THE_MODEL


def _format(value: Any, schema: Mapping[str, Any]) -> Fate:
    if not isinstance(value, str) or value in _FORMATS:
        return Fate.KEPT
    kinds = schema.get("type", "string")
    return _left("string" in (kinds if isinstance(kinds, list) else [kinds]))


def _pattern(value: Any, schema: Mapping[str, Any]) -> Fate:
    return Fate.LEFT_TO_THE_MODEL if is_too_rich(value) else Fate.KEPT


def _has_rich_names(schema: Mapping[str, Any]) -> bool:
    named = schema.get("patternProperties")
    return isinstance(named, Mapping) and any(map(is_too_rich, named))


def _patterns_of_names(value: Any, schema: Mapping[str, Any]) -> Fate:
    """With the patterns goes what is said of names that match none of them."""
    is_left = _has_rich_names(schema) and not _is_anything(value)
    return Fate.LEFT_TO_THE_MODEL if is_left else Fate.KEPT


def _number_of_properties(value: Any, schema: Mapping[str, Any]) -> Fate:
    """llguidance counts only where every property that is described is required."""
    named, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(named, Mapping) or not isinstance(required, list):
        return Fate.KEPT
    return Fate.KEPT if all(name in required for name in named) else Fate.LEFT_TO_THE_MODEL


def _min_properties(value: Any, schema: Mapping[str, Any]) -> Fate:
    required = schema.get("required", [])
    if isinstance(value, int) and isinstance(required, list) and value <= len(required):
        return Fate.EMPTY
    return _number_of_properties(value, schema)


_RULES: Mapping[str, Callable[[Any, Mapping[str, Any]], Fate]] = {
    "uniqueItems": _unique,
    "not": _not,
    "contains": _contains,
    "minContains": _min_contains,
    "maxContains": _max_contains,
    "if": _if,
    "then": _part_of_if,
    "else": _part_of_if,
    "dependentRequired": _per_name,
    "dependentSchemas": _per_name,
    "dependencies": _per_name,
    "propertyNames": _names,
    "unevaluatedProperties": _unevaluated("unevaluatedProperties"),
    "unevaluatedItems": _unevaluated("unevaluatedItems"),
    "$dynamicRef": _narrowing,
    "$recursiveRef": _narrowing,
    "format": _format,
    "pattern": _pattern,
    "patternProperties": _patterns_of_names,
    "additionalProperties": _patterns_of_names,
    "minProperties": _min_properties,
    "maxProperties": _number_of_properties,
}
