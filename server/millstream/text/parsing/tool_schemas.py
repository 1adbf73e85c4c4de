"""What the request's tools say about calls: which names exist, and the types of arguments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
_MAX_NAME = 256
_SEPARATORS = ("-", "__", ".")
"""What stands between a plugin, server or namespace and its tool; `_` is a part of words."""
_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null"}


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools a request offers: for each name the JSON schema of its arguments."""

    parameters: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, tools: Iterable[Mapping[str, Any]]) -> Tools:
        """Takes the `tools` of an OpenAI request."""
        functions = [tool.get("function", tool) for tool in tools]
        return cls({function["name"]: function.get("parameters") or {} for function in functions})

    def named(self, name: Any, *, is_marked: bool) -> str | None:
        """The name of the tool that a call means; None if it is no call.

        An offered name is itself; the ending of one offered name, after a separator, is that name.
        is_marked: the call stands behind a marker, so that it is meant as one whatever its name:
        one that no tool has is for the client to answer. Else it may be any JSON.
        """
        if not isinstance(name, str):
            return None
        if name in self.parameters:
            return name
        ends = tuple(separator + name for separator in _SEPARATORS)
        meant = [offered for offered in self.parameters if offered.endswith(ends)] if name else []
        if len(meant) == 1:
            return meant[0]
        return name if is_marked and 0 < len(name.strip()) <= _MAX_NAME else None

    def types(self, name: str, key: str) -> tuple[str, ...]:
        """The JSON types that an argument may have; none if the schema does not tell."""
        schema = self.parameters.get(name, {})
        properties = schema.get("properties")
        return types_of(properties.get(key), schema) if isinstance(properties, Mapping) else ()


def types_of(schema: Any, root: Mapping[str, Any]) -> tuple[str, ...]:
    """The JSON types that a schema allows; none where it does not tell.

    schema: as a client wrote it, so it may be none; what is malformed tells nothing. root: the
    schema that its references are about.
    """
    types: list[str] = []
    pending, seen = [schema], set[str]()
    while pending:
        schema = pending.pop(0)
        if not isinstance(schema, Mapping):
            continue
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            pending.append(referred(reference, root))
        types += _own_types(schema)
        choices = [schema.get("anyOf"), schema.get("oneOf"), schema.get("allOf")]
        pending += [choice for group in choices if isinstance(group, list) for choice in group]
        if schema.get("nullable"):
            types.append("null")
    return tuple(dict.fromkeys(types))


def referred(reference: str, root: Mapping[str, Any]) -> Any:
    """The schema that a reference like `#/$defs/City` means; None if it is not there."""
    found: Any = root
    head, *keys = reference.split("/")
    if head != "#":
        return None
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _own_types(schema: Mapping[str, Any]) -> list[str]:
    declared = schema.get("type")
    if declared is not None:
        declared = declared if isinstance(declared, list) else [declared]
        return [kind for kind in declared if isinstance(kind, str)]
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return [type_of(value) for value in values] if isinstance(values, list) else []


def type_of(value: Any) -> str:
    """The JSON type of a value."""
    if isinstance(value, bool):
        return "boolean"
    for kind, types in _PYTHON_TYPES.items():
        if isinstance(value, types):
            return kind
    return "string"


def is_text(types: Iterable[str]) -> bool:
    """Whether a value of these types is always a string, so that it needs no second look."""
    return all(kind == "string" for kind in types)


def as_json(raw: str, types: Iterable[str]) -> str:
    """The JSON text of a value that the model wrote without JSON; a string if nothing else fits."""
    word = _WORDS.get(raw.strip().lower(), raw)
    try:
        value = json.loads(word, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json.dumps(raw, ensure_ascii=False)
    for kind in types:
        is_whole = isinstance(value, float) and value.is_integer()
        if kind == "integer" and is_whole:
            return str(int(value))
        is_bool = isinstance(value, bool)
        if isinstance(value, _PYTHON_TYPES.get(kind, ())) and is_bool == (kind == "boolean"):
            return json.dumps(value, ensure_ascii=False)
    return json.dumps(raw, ensure_ascii=False)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
