"""What an argument may be where models write it between tags, not as JSON.

A string stands there as it is, everything else as JSON; which of the two it is, the reader decides
by the tool's schema (`parsing.schemas`), and so does this. Rule: what is written is read back as a
value that the schema allows. What cannot be held to that raises `CannotWrite`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from millstream.text.parsing.tool_schemas import is_text, referred, type_of, types_of

_ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
)
_TEXT_KEYS = _ANNOTATIONS | {"type", "enum", "const", "minLength", "maxLength"}
_OBJECT_KEYS = _ANNOTATIONS.union(
    ["type", "properties", "required", "additionalProperties", "$defs", "definitions"],
    ["$schema", "$id", "$comment"],
)
_WORDS = {"null": ("null",), "boolean": ("true", "false")}


class CannotWrite(ValueError):
    """These arguments cannot be written between tags; the message says why."""


def check_object(schema: Mapping[str, Any]) -> None:
    """Raises CannotWrite for what an object demands beyond its properties."""
    if unknown := sorted(schema.keys() - _OBJECT_KEYS):
        raise CannotWrite(f"{unknown[0]} cannot be enforced between tags")
    undeclared = set(schema.get("required", ())) - set(schema.get("properties", {}))
    if undeclared:
        raise CannotWrite(f"{sorted(undeclared)[0]} is required and not described")


def tagged_text(schema: Any, root: Mapping[str, Any], *, close_tag: str, edge: str) -> str | None:
    """The Lark expression of an argument that is written as it is; None: it is written as JSON.

    root: the schema that references are about. close_tag: what no value may contain. edge: the
    characters, as in a regex class, that a value may not begin or end with, as the reader drops
    them. The expression is made of the terminals ANY and SHUT (what contains the close tag).
    """
    types = types_of(schema, root)
    if is_text(types):
        return _string(_resolved(schema, root), close_tag, edge)
    if "string" not in types:
        return None
    if not {"string", "null", "boolean"}.issuperset(types):
        raise CannotWrite("a string or a number cannot be told apart between tags")
    options = []
    for branch in _branches(_resolved(schema, root), root):
        if branch.get("type") == "string":
            options.append(_string(branch, close_tag, edge))
        else:
            options += map(json.dumps, _words(branch))
    return " | ".join(f"({option})" for option in options)


def _string(schema: Mapping[str, Any], close_tag: str, edge: str) -> str:
    if unknown := sorted(schema.keys() - _TEXT_KEYS):
        raise CannotWrite(f"{unknown[0]} of a string cannot be enforced between tags")
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        return " | ".join(_literals(values, schema, close_tag, edge))
    low, high = schema.get("minLength", 0), schema.get("maxLength", "")
    parts = ["ANY", "~SHUT"]
    if low or high != "":
        parts.append(f"/(?s:.{{{low},{high}}})/")
    if edge:
        parts += [f"~/[{edge}](?s:.*)/", f"~/(?s:.*)[{edge}]/"]
    return " & ".join(parts)


def _literals(
    values: Iterable[Any], schema: Mapping[str, Any], close_tag: str, edge: str
) -> list[str]:
    low, high = schema.get("minLength", 0), schema.get("maxLength", float("inf"))
    fitting = [one for one in values if isinstance(one, str) and low <= len(one) <= high]
    for value in fitting:
        if close_tag in value or (edge and value != value.strip()):
            raise CannotWrite("a value of enum or const cannot be written between tags")
    if not fitting:
        raise CannotWrite("no value of enum or const is a string that fits")
    return [json.dumps(value) for value in fitting]


def _resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself where it is no more than a reference."""
    for _ in range(16):
        if not isinstance(schema, Mapping) or "$ref" not in schema:
            break
        if schema.keys() - _ANNOTATIONS != {"$ref"}:
            raise CannotWrite("a reference with more beside it cannot be enforced between tags")
        schema = referred(schema["$ref"], root)
    return schema if isinstance(schema, Mapping) else {}


def _branches(schema: Mapping[str, Any], root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One schema for each of the types that a value may have."""
    for key in ("anyOf", "oneOf"):
        if key in schema:
            if unknown := sorted(schema.keys() - _ANNOTATIONS - {key}):
                raise CannotWrite(f"{unknown[0]} beside {key} cannot be enforced between tags")
            found = [_resolved(branch, root) for branch in schema[key]]
            return [one for branch in found for one in _branches(branch, root)]
    types = types_of(schema, root)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    parts: list[Mapping[str, Any]] = []
    for kind in types:
        part = {**schema, "type": kind}
        if values is not None:
            fitting = [value for value in values if type_of(value) == kind]
            part = {key: part[key] for key in part.keys() - {"const"}} | {"enum": fitting}
        if values is None or fitting:
            parts.append(part)
    return parts


def _words(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The ways to write null or a truth value."""
    if unknown := sorted(schema.keys() - _TEXT_KEYS):
        raise CannotWrite(f"{unknown[0]} cannot be enforced between tags")
    words = _WORDS[schema["type"]]
    if "enum" not in schema:
        return words
    return tuple(word for word in words if json.loads(word) in schema["enum"])
