"""Fields that say what the answer must look like.

Sources: OpenAI's `response_format`; TGI's values of it, where the schema is in `value`; vLLM's
`structured_outputs` and the older `guided_*`. At most one of them is given.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, StringConstraints, Tag

from millstream.errors import InvalidRequest
from millstream.intake.strict_body import Body

MAX_CHOICE_TEXTS = 1024

Schema = Annotated[
    Annotated[dict[str, Any], Tag("parts")] | Annotated[str, Tag("text")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "parts"),
]
Text = Annotated[str, StringConstraints(min_length=1)]
Choices = Annotated[list[Text], Field(min_length=1, max_length=MAX_CHOICE_TEXTS)]

_NAMED = {"name", "description", "schema", "strict"}
_ANY_OBJECT = {"type": "object"}


class WantedFormat(NamedTuple):
    """param: the path of the field that asks for it. value: a schema, pattern, texts or grammar."""

    param: str
    kind: Literal["json", "regex", "choice", "grammar"]
    value: Any


class JsonSchema(Body):
    """strict changes nothing: the schema is always enforced. name, description: for people."""

    name: str | None = None
    description: str | None = None
    schema_: Schema | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json", "json_schema", "regex"]
    json_schema: JsonSchema | None = None
    value: Schema | None = None

    @property
    def wanted(self) -> WantedFormat | None:
        """Raises InvalidRequest for members that the type has not, or lacks."""
        if self.json_schema is not None and self.type != "json_schema":
            raise _refusal("json_schema", f"type {self.type} has no json_schema")
        if self.type == "text":
            if self.value is not None:
                raise _refusal("value", "type text has no value")
            return None
        if self.type == "json_schema":
            return self._schema()
        if self.type == "regex":
            if not isinstance(self.value, str):
                raise _refusal("value", "type regex needs a pattern")
            return WantedFormat("response_format.value", "regex", self.value)
        if self.value is None:
            return WantedFormat("response_format", "json", _ANY_OBJECT)
        return WantedFormat("response_format.value", "json", self.value)

    def _schema(self) -> WantedFormat:
        """OpenAI's shape, or TGI's: a schema with a name around it, in `value`."""
        if self.json_schema is not None and self.value is not None:
            raise _refusal("value", "json_schema says it already; send one of them")
        if self.json_schema is not None:
            path, schema = "response_format.json_schema.schema", self.json_schema.schema_
        elif isinstance(self.value, dict):
            path, schema = "response_format.value.schema", self.value.get("schema")
            if unknown := sorted(self.value.keys() - _NAMED):
                raise _refusal(f"value.{unknown[0]}", "not a member of a named schema")
            if not isinstance(schema, dict | str):
                raise _refusal("value.schema", "a schema is an object or its text")
        else:
            raise _refusal("json_schema", "type json_schema needs it")
        # OpenAI takes a format without a schema, which then says no more than json_object.
        if schema is None and self.json_schema is not None:
            return WantedFormat("response_format", "json", _ANY_OBJECT)
        return WantedFormat(path, "json", schema)


class StructuredOutputs(Body):
    json_: Schema | None = Field(None, alias="json")
    regex: Text | None = None
    choice: Choices | None = None
    grammar: Text | None = None
    json_object: bool | None = None


class FormatFields(Body):
    """One part of a chat request."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: Text | None = None
    guided_choice: Choices | None = None
    guided_grammar: Text | None = None

    @property
    def wanted_format(self) -> WantedFormat | None:
        """What the answer must look like, if any field says so. `check_format()` comes first."""
        return self._find_format()

    def check_format(self) -> None:
        """Raises InvalidRequest if several fields ask for a format, or members do not fit."""
        self._find_format()

    def _find_format(self) -> WantedFormat | None:
        found = [
            WantedFormat("guided_json", "json", self.guided_json),
            WantedFormat("guided_regex", "regex", self.guided_regex),
            WantedFormat("guided_choice", "choice", self.guided_choice),
            WantedFormat("guided_grammar", "grammar", self.guided_grammar),
        ]
        if (outputs := self.structured_outputs) is not None:
            found += [
                WantedFormat("structured_outputs.json", "json", outputs.json_),
                WantedFormat("structured_outputs.regex", "regex", outputs.regex),
                WantedFormat("structured_outputs.choice", "choice", outputs.choice),
                WantedFormat("structured_outputs.grammar", "grammar", outputs.grammar),
            ]
            if outputs.json_object:
                found.append(WantedFormat("structured_outputs.json_object", "json", _ANY_OBJECT))
        wanted = [one for one in found if one.value is not None]
        if self.response_format is not None and (one := self.response_format.wanted):
            wanted.insert(0, one)
        if len(wanted) > 1:
            raise InvalidRequest(
                f"{wanted[0].param} says what the answer looks like; send one such field",
                param=wanted[1].param,
            )
        return wanted[0] if wanted else None


def _refusal(member: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"response_format.{member}: {reason}", param=f"response_format.{member}")
