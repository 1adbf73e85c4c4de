"""What Python callers pass, as the JSON that requests are made of.

Rule: whatever is wrong is an InvalidRequest that names the argument, before anything is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from millstream.errors import InvalidRequest

_MAX_DEPTH = 200
_MAX_BITS = 1024  # of an integer


class WrongArgument(InvalidRequest, TypeError):
    """An argument that does not exist, or a value of a kind that is never right."""


def as_json(value: Any, *, path: str, depth: int = 0) -> Any:
    """The value with lists for tuples and dicts for mappings. path: of the argument, for errors.

    Raises InvalidRequest for what JSON has not.
    """
    if depth > _MAX_DEPTH:
        raise _refusal(path, "nested too deeply")
    if isinstance(value, str):
        return _text(value, path=path)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise _refusal(path, "the number is too large")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refusal(path, f"{value} is not a finite number")
        return value
    if isinstance(value, Mapping):
        return {
            _key(key, path=path): as_json(item, path=path, depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [as_json(item, path=path, depth=depth + 1) for item in value]
    raise _refusal(path, f"a {type(value).__name__} cannot be written as JSON")


def _key(key: Any, *, path: str) -> str:
    if isinstance(key, str):
        return _text(key, path=path)
    # Token ids, which are text in JSON.
    if path == "logit_bias" and type(key) is int:
        return str(key)
    raise _refusal(path, f"{key!r} is not a name")


def _text(text: str, *, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refusal(path, "the text has half of a surrogate pair") from error
    return text


def _refusal(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)
