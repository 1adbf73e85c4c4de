"""Fields that say what the answer must look like.

Sources: `response_format`; vLLM's `structured_outputs` and the older `guided_*`; llama.cpp's
`grammar` and `json_schema`, the former also as TGI writes it; SGLang's `json_schema`, `regex` and
`ebnf`. At most one of them is given.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from millstream.errors import InvalidRequest
from millstream.intake.fields.response_format import (
    ANY_OBJECT,
    ResponseFormat,
    Schema,
    Text,
    WantedFormat,
)
from millstream.intake.strict_body import Body

MAX_CHOICE_TEXTS = 1024

Choices = Annotated[list[Text], Field(min_length=1, max_length=MAX_CHOICE_TEXTS)]


class StructuredOutputs(Body):
    """Members beside the first five say how vLLM does it, and may ask for nothing."""

    json_: Schema | None = Field(None, alias="json")
    regex: Text | None = None
    choice: Choices | None = None
    grammar: Text | None = None
    json_object: bool | None = None

    disable_additional_properties: Literal[False] | None = None
    disable_any_whitespace: Literal[False] | None = None
    disable_fallback: bool | None = None
    structural_tag: None = None
    whitespace_pattern: None = None


class FormatFields(Body):
    """One part of a generation request."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: Text | None = None
    guided_choice: Choices | None = None
    guided_grammar: Text | None = None
    grammar: (
        Annotated[
            Annotated[str, Tag("text")] | Annotated[ResponseFormat, Tag("parts")],
            Discriminator(lambda value: "text" if isinstance(value, str) else "parts"),
        ]
        | None
    ) = None
    json_schema: Schema | None = None
    regex: Text | None = None
    ebnf: Text | None = None

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
            WantedFormat("json_schema", "json", self.json_schema),
            WantedFormat("regex", "regex", self.regex),
            WantedFormat("ebnf", "grammar", self.ebnf),
        ]
        if isinstance(self.grammar, str):
            # llama.cpp's own page sends an empty one with every request.
            found.append(WantedFormat("grammar", "grammar", self.grammar or None))
        if (outputs := self.structured_outputs) is not None:
            found += [
                WantedFormat("structured_outputs.json", "json", outputs.json_),
                WantedFormat("structured_outputs.regex", "regex", outputs.regex),
                WantedFormat("structured_outputs.choice", "choice", outputs.choice),
                WantedFormat("structured_outputs.grammar", "grammar", outputs.grammar),
            ]
            if outputs.json_object:
                found.append(WantedFormat("structured_outputs.json_object", "json", ANY_OBJECT))
        wanted = [one for one in found if one.value is not None]
        for path, field in (("grammar", self.grammar), ("response_format", self.response_format)):
            if isinstance(field, ResponseFormat) and (one := field.wanted(path)):
                wanted.insert(0, one)
        if len(wanted) > 1:
            raise InvalidRequest(
                f"{wanted[0].param} says what the answer looks like; send one such field",
                param=wanted[1].param,
            )
        return wanted[0] if wanted else None
