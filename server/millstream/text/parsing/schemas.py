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
_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null"}


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools a request offers: for each name the JSON schemas of its parameters."""

    parameters: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, tools: Iterable[Mapping[str, Any]]) -> Tools:
        """From the `tools` of an OpenAI request."""
        functions = [tool.get("function", tool) for tool in tools]
        return cls({function["name"]: _properties(function) for function in functions})

    def types(self, name: str, key: str) -> tuple[str, ...]:
        """The JSON types that an argument may have; none if the schema does not tell."""
        return _types(self.parameters.get(name, {}).get(key))


def _properties(function: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = (function.get("parameters") or {}).get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _types(schema: Any) -> tuple[str, ...]:
    """Of a schema as a client wrote it, which may be none: what is malformed tells nothing."""
    types: list[str] = []
    pending = [schema]
    while pending:
        schema = pending.pop(0)
        if not isinstance(schema, Mapping):
            continue
        declared = schema.get("type")
        declared = declared if isinstance(declared, list) else [declared]
        types += [kind for kind in declared if isinstance(kind, str)]
        choices = [schema.get("anyOf"), schema.get("oneOf")]
        pending += [choice for group in choices if isinstance(group, list) for choice in group]
        if schema.get("nullable"):
            types.append("null")
    return tuple(types)


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
