"""Whether no value can match two schemas, as far as that is easily proved. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from millstream.text.parsing.tool_schemas import referred, type_of

_TYPES = frozenset({"null", "boolean", "number", "string", "array", "object"})
_MAX_STEPS = 20_000
_MAX_DEPTH = 16


class DisjointProof:
    """Proves for schemas within one root that they exclude each other. Its effort is bounded."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._steps = 0

    def all_exclude_each_other(self, schemas: Sequence[Any]) -> bool:
        """Whether no value matches two of these; False also if that was not found out."""
        return all(self._are_disjoint(a, b, 0) for a, b in combinations(schemas, 2))

    def _are_disjoint(self, a: Any, b: Any, depth: int) -> bool:
        self._steps += 1
        if depth > _MAX_DEPTH or self._steps > _MAX_STEPS:
            return False
        if a is False or b is False:
            return True
        if not isinstance(a, Mapping) or not isinstance(b, Mapping):
            return False
        for one, other in ((a, b), (b, a)):
            if self._is_excluded_by_parts(one, other, depth):
                return True
        common = _types(a) & _types(b)
        if not common:
            return True
        values = [_values(a), _values(b)]
        if values[0] is not None and values[1] is not None:
            return values[0].isdisjoint(values[1])
        return common == {"object"} and (
            self._differ_in_a_property(a, b, depth) or _forbids(a, b) or _forbids(b, a)
        )

    def _is_excluded_by_parts(self, a: Mapping[str, Any], b: Any, depth: int) -> bool:
        """Whether what `a` refers to or is made of excludes `b`."""
        parts = a.get("allOf")
        must = list(parts) if isinstance(parts, list) else []
        if isinstance(reference := a.get("$ref"), str):
            must.append(referred(reference, self._root))
        if any(self._are_disjoint(part, b, depth + 1) for part in must):
            return True
        for keyword in ("anyOf", "oneOf"):
            branches = a.get(keyword)
            if isinstance(branches, list) and all(
                self._are_disjoint(branch, b, depth + 1) for branch in branches
            ):
                return True
        return False

    def _differ_in_a_property(self, a: Mapping[str, Any], b: Mapping[str, Any], depth: int) -> bool:
        """Whether a property that both require excludes each other's values."""
        described = [_properties(one) for one in (a, b)]
        return any(
            name in described[0]
            and name in described[1]
            and self._are_disjoint(described[0][name], described[1][name], depth + 1)
            for name in _required(a) & _required(b)
        )


def _forbids(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether `a` has no room for a property that `b` requires."""
    is_closed = a.get("additionalProperties") is False and "patternProperties" not in a
    return is_closed and not _required(b) <= _properties(a).keys()


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _required(schema: Mapping[str, Any]) -> set[str]:
    required = schema.get("required")
    if not isinstance(required, list):
        return set()
    return {name for name in required if isinstance(name, str)}


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types that a value may have; an integer is a number."""
    given = schema.get("type")
    names = given if isinstance(given, list) else [given]
    types = _widened(names) if given is not None else _TYPES
    values = _listed(schema)
    return types if values is None else types & _widened(map(type_of, values))


def _widened(names: Iterable[Any]) -> frozenset[str]:
    return frozenset("number" if name == "integer" else str(name) for name in names)


def _listed(schema: Mapping[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None


def _values(schema: Mapping[str, Any]) -> set[str] | None:
    """The values that are listed, as texts: 1 and 1.0 are one of them, 1 and true are not."""
    values = _listed(schema)
    return None if values is None else {json.dumps(_plain(one), sort_keys=True) for one in values}


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
