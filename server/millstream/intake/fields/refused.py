"""Fields that are known and not implemented, and what about them is accepted all the same."""

from __future__ import annotations

from typing import Any

from millstream.errors import InvalidRequest
from millstream.intake.fields.unsupported import NEUTRAL, UNSUPPORTED
from millstream.intake.known_fields import unknown_field


def is_neutral(name: str, value: Any) -> bool:
    """Whether an unsupported field has a value that changes nothing."""
    return value is None or any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
        for neutral in NEUTRAL.get(name, ())
    )


def without_unsupported(body: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The fields of a body that its schema is to check. Raises InvalidRequest for all others."""
    fields = {}
    for name, value in body.items():
        if name in known:
            fields[name] = value
        elif name not in UNSUPPORTED:
            raise unknown_field(name)
        elif not is_neutral(name, value):
            raise InvalidRequest(
                f"{name} is not supported by this server", param=name, code="unsupported_parameter"
            )
    return fields
