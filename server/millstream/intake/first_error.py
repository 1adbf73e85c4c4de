"""Checks of bodies that end at the first error.

A body can have a hundred thousand errors, and pydantic makes all of those that it finds, within one
call that keeps the interpreter: for 2 MB of wrong parts two seconds. So lists end at their first
wrong item, and objects at their first unknown key.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, BeforeValidator, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticKnownError


def _fail_fast(schema: Any) -> None:
    """Lets every list within a schema end at its first error."""
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            schema["fail_fast"] = True
        for part in schema.values():
            _fail_fast(part)
    elif isinstance(schema, list):
        for part in schema:
            _fail_fast(part)


class FirstErrorModel(BaseModel):
    """A model whose lists and unknown keys have one error each."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _fail_fast(schema)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _one_unknown_key_is_enough(cls, value: Any) -> Any:
        # Called for each object, it is also where a long check lets other threads run.
        if not isinstance(value, dict):
            return value
        known = _keys(cls)
        unknown = next((key for key in value if key not in known), None)
        if unknown is None:
            return value
        return {key: value[key] for key in (unknown, *known) if key in value}


@cache
def _keys(schema: type[FirstErrorModel]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in schema.model_fields.items())


def at_most(count: int) -> BeforeValidator:
    """For dictionaries, which pydantic counts after it has checked all they have."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > count:
            numbers = {"max_length": count, "actual_length": len(value)}
            raise PydanticKnownError("too_long", {"field_type": "Dictionary", **numbers})
        return value

    return BeforeValidator(check)
