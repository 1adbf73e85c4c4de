"""Bodies that have certain fields and no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from millstream.errors import InvalidRequest
from millstream.intake.strict_body import Body, invalid

B = TypeVar("B", bound=Body)


def unknown_field(name: str) -> InvalidRequest:
    """The refusal of a field that the API does not have."""
    return InvalidRequest(
        f"{name} is not a field of this API", param=name, code="unknown_parameter"
    )


def checked_body(kind: type[B], body: Mapping[str, Any]) -> B:
    """A body that has these fields and no others. Raises InvalidRequest that names the field."""
    for name in body:
        if name not in kind.model_fields:
            raise unknown_field(name)
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)[0]) from error
