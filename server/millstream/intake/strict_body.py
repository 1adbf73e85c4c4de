"""What all bodies share: strict types, nothing unknown, errors that name the field."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict
from pydantic_core import ErrorDetails

from millstream.errors import InvalidRequest
from millstream.intake.first_error import FirstErrorModel

_UNION_TAGS = ("text", "parts", "string", "list", "strings", "ids", "id_lists")


class Body(FirstErrorModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def invalid(error: ErrorDetails) -> InvalidRequest:
    """The refusal whose `param` is the path of the wrong field."""
    first, *rest = error["loc"]
    path = str(first)
    for part in rest:
        if isinstance(part, int):
            path += f"[{part}]"
        elif path in ("logit_bias", "metadata"):
            # Names inside of these are the client's own, not fields.
            return InvalidRequest(f"{path}: {part!r}: {error['msg']}", param=path)
        elif part not in _UNION_TAGS or path.endswith("]"):
            path += f".{part}"
    return InvalidRequest(f"{path}: {error['msg']}", param=path)


def whole_number(value: Any) -> Any:
    """A float that is an integer as that: JSON has one kind of number, like some clients."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def tag(*, of_list: str, otherwise: str) -> Any:
    """A discriminator for `T | list[T]`, so that errors speak of the form that was sent."""
    return lambda value: of_list if isinstance(value, list) else otherwise
