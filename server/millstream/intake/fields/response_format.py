"""The field `response_format`, in all the shapes of it that are about.

Sources: OpenAI; TGI, where the schema or pattern is in `value`; llama.cpp, where it is in `schema`
beside the type; Fireworks, whose type `grammar` has a `grammar`; the Responses API, where the
members of `json_schema` are beside the type.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, StringConstraints, Tag

from millstream.errors import InvalidRequest
from millstream.intake.strict_body import Body

ANY_OBJECT = {"type": "object"}

Schema = Annotated[
    Annotated[dict[str, Any], Tag("parts")] | Annotated[str, Tag("text")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "parts"),
]
Text = Annotated[str, StringConstraints(min_length=1)]
FormatKind = Literal["json", "regex", "choice", "grammar"]

_NAMED = {"name", "description", "schema", "strict"}
_KINDS: dict[str, FormatKind] = {"regex": "regex", "grammar": "grammar"}
_MEMBERS = {
    "text": (),
    "json_object": ("schema", "value"),
    "json": ("schema", "value"),
    "json_schema": ("json_schema", "schema", "value"),
    "regex": ("value",),
    "grammar": ("grammar", "value"),
}
"""The members of which each type may have one."""
_COMPLETE = {"text", "json_object", "json"}
"""The types that need no member."""


class WantedFormat(NamedTuple):
    """param: the path of the field that asks for it. value: a schema, pattern, texts or grammar.

    is_strict: nothing of it may be left to the model.
    """

    param: str
    kind: FormatKind
    value: Any
    is_strict: bool = False


class JsonSchema(Body):
    """strict: keywords that cannot be enforced are refused. name, description: for people."""

    name: str | None = None
    description: str | None = None
    schema_: Schema | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """name, description, strict: those of a schema that is in `schema`."""

    type: Literal["text", "json_object", "json", "json_schema", "regex", "grammar"]
    json_schema: JsonSchema | None = None
    schema_: Schema | None = Field(None, alias="schema")
    value: Schema | None = None
    grammar: Text | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None

    def wanted(self, path: str) -> WantedFormat | None:
        """What is asked for. path: of the field that this is the value of.

        Raises InvalidRequest for members that the type has not, or lacks.
        """
        member, value = self._member(path)
        if self.type == "text":
            return None
        if value is None:
            return WantedFormat(path, "json", ANY_OBJECT)
        if isinstance(value, JsonSchema):
            # OpenAI takes a format without a schema, which then says no more than json_object.
            if value.schema_ is None:
                return WantedFormat(path, "json", ANY_OBJECT)
            param = f"{path}.{member}.schema"
            return WantedFormat(param, "json", value.schema_, is_strict=bool(value.strict))
        if self.type == "json_schema" and member == "value":
            return _named_schema(f"{path}.value", value)
        kind = _KINDS.get(self.type, "json")
        if kind != "json" and not isinstance(value, str):
            raise _refusal(f"{path}.{member}", f"type {self.type} needs a text")
        return WantedFormat(f"{path}.{member}", kind, value, is_strict=bool(self.strict))

    def _member(self, path: str) -> tuple[str, Any]:
        """The one member beside the type, and its value; None if there is none."""
        members = {
            "json_schema": self.json_schema,
            "schema": self.schema_,
            "value": self.value,
            "grammar": self.grammar,
        }
        allowed = _MEMBERS[self.type]
        given = [name for name, value in members.items() if value is not None]
        for name in given:
            if name not in allowed:
                raise _refusal(f"{path}.{name}", f"type {self.type} has no {name}")
        if len(given) > 1:
            raise _refusal(f"{path}.{given[1]}", f"{given[0]} says it already; send one of them")
        if not given and self.type not in _COMPLETE:
            raise _refusal(f"{path}.{allowed[0]}", f"type {self.type} needs it")
        is_flat = self.type == "json_schema" and given == ["schema"]
        for name in ("name", "description", "strict"):
            if getattr(self, name) is not None and not is_flat:
                raise _refusal(f"{path}.{name}", "only beside type json_schema and a schema")
        return (given[0], members[given[0]]) if given else ("", None)


def _named_schema(path: str, value: dict[str, Any] | str) -> WantedFormat:
    """TGI's: a schema with a name around it."""
    if not isinstance(value, dict):
        raise _refusal(path, "type json_schema needs an object with a schema")
    if unknown := sorted(value.keys() - _NAMED):
        raise _refusal(f"{path}.{unknown[0]}", "not a member of a named schema")
    schema = value.get("schema")
    if not isinstance(schema, dict | str):
        raise _refusal(f"{path}.schema", "a schema is an object or its text")
    return WantedFormat(f"{path}.schema", "json", schema, is_strict=value.get("strict") is True)


def _refusal(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)
