"""What of a JSON Schema a grammar can enforce, and what is left to the model.

Some keywords only narrow what the others allow, and no grammar can express them: that the items of
an array differ, say. A schema without them allows every text that the whole schema allows, so an
answer can still be right; whoever asks for the schema is told which keywords those are.

Rules: the schema that comes out is one that llguidance takes, as far as keywords go. What can be
said in other words is (`oneOf` of branches that exclude each other is `anyOf`), and what asks for
nothing (`uniqueItems: false`) is left out; neither is reported. Nothing else is changed: what is
wrong in a schema stays in it, for `answer_formats` to refuse. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from millstream.text.grammars.disjoint_schemas import DisjointProof
from millstream.text.grammars.keyword_rules import Fate, closing_keyword, fate_of

_MAPS = {"properties", "patternProperties", "$defs", "definitions"}
_LISTS = {"allOf", "anyOf", "oneOf", "prefixItems", "items"}
_SINGLE = {"items", "additionalItems", "additionalProperties"}


class Unenforced(NamedTuple):
    """A keyword that no grammar can enforce. path: where in the whole schema it stands."""

    keyword: str
    path: str


class EnforceableSchema(NamedTuple):
    """unenforced: what was left out although it narrows, in the order of the schema."""

    schema: Any
    unenforced: tuple[Unenforced, ...]

    @property
    def keywords(self) -> tuple[str, ...]:
        """The names of what was left out, each once."""
        return tuple(dict.fromkeys(one.keyword for one in self.unenforced))


def enforceable(schema: Any) -> EnforceableSchema:
    """schema: an object, or its text. What is no schema comes back as it is."""
    try:
        value = json.loads(schema) if isinstance(schema, str) else schema
        if not isinstance(value, Mapping):
            return EnforceableSchema(schema, ())
        reader = _Reader(value)
        loose = reader.read(value, ())
    except (RecursionError, ValueError):
        return EnforceableSchema(schema, ())  # not JSON, or too deep, which is told elsewhere
    return EnforceableSchema({"anyOf": []} if loose is False else loose, reader.reachable())


class _Reader:
    """Rewrites one schema."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._proof = DisjointProof(root)
        # By definition, that of the root being "": what is left out, and what is referred to.
        self._unenforced: dict[str, list[Unenforced]] = {"": []}
        self._references: dict[str, list[str]] = {"": []}
        self._part = ""

    def reachable(self) -> tuple[Unenforced, ...]:
        """What was left out, but for definitions that nobody refers to."""
        parts = [""]
        for part in parts:
            for reference in self._references[part]:
                definition = "/".join(reference.split("/")[:3])
                if definition in self._unenforced and definition not in parts:
                    parts.append(definition)
        return tuple(one for part in self._unenforced if part in parts for one in self._at(part))

    def read(self, schema: Any, path: tuple[str, ...]) -> Any:
        """The schema as a grammar can enforce it. path: of the keywords that lead to it."""
        if not isinstance(schema, Mapping):
            return schema
        if schema.get("not") is True or schema.get("not") == {}:
            return False
        if isinstance(reference := schema.get("$ref"), str):
            self._references[self._part].append(reference)
        loose: dict[str, Any] = {}
        for keyword, value in schema.items():
            fate, at = fate_of(keyword, schema), (*path, keyword)
            if fate is Fate.LEFT_TO_THE_MODEL:
                self._leave_out(at)
            elif fate is Fate.SAID_OTHERWISE and (other := closing_keyword(keyword)):
                loose[other] = self.read(value, at)
            elif fate is Fate.KEPT:
                loose[keyword] = self._value(keyword, value, at)
        self._say_otherwise(loose, schema, path)
        return loose

    def _value(self, keyword: str, value: Any, path: tuple[str, ...]) -> Any:
        if keyword in _MAPS and isinstance(value, Mapping):
            return {name: self._named(one, (*path, name)) for name, one in value.items()}
        if keyword in _LISTS and isinstance(value, list):
            return [self.read(one, (*path, str(index))) for index, one in enumerate(value)]
        return self.read(value, path) if keyword in _SINGLE else value

    def _named(self, schema: Any, path: tuple[str, ...]) -> Any:
        if len(path) > 2 or path[0] not in ("$defs", "definitions"):
            return self.read(schema, path)
        before, self._part = self._part, f"#/{path[0]}/{path[1]}"
        self._unenforced[self._part], self._references[self._part] = [], []
        loose = self.read(schema, path)
        self._part = before
        return loose

    def _say_otherwise(
        self, loose: dict[str, Any], schema: Mapping[str, Any], path: tuple[str, ...]
    ) -> None:
        """Puts into the words of llguidance what has other ones."""
        for exclusive, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(loose.get(exclusive), bool):  # draft 4: whether the limit is one
                is_exclusive = loose.pop(exclusive)
                if is_exclusive and limit in loose:
                    loose[exclusive] = loose.pop(limit)
        if isinstance(branches := loose.get("oneOf"), list):
            if not self._proof.all_exclude_each_other(schema["oneOf"]):
                self._leave_out((*path, "oneOf"))
            del loose["oneOf"]
            other = loose.get("allOf", [])
            if "anyOf" not in loose:
                loose["anyOf"] = branches
            elif isinstance(other, list):
                loose["allOf"] = [*other, {"anyOf": branches}]

    def _leave_out(self, path: tuple[str, ...]) -> None:
        self._unenforced[self._part].append(Unenforced(path[-1], ".".join(path)))

    def _at(self, part: str) -> list[Unenforced]:
        return self._unenforced[part]
