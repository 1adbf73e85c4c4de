"""The arguments of calls in a conversation's earlier turns: a text that is JSON, or should be.

Rule: a model may have written anything, and a limit may have cut it short, so what is no JSON is
passed on as the text that it is; the server never refuses what it produced.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from millstream.errors import InvalidRequest

MAX_NESTING = 100
"""Levels of lists and objects; templates walk through them on the interpreter's stack."""


def read_arguments(arguments: Any, *, field: str) -> Any:
    """What the arguments mean: their JSON value, no arguments for null, or the text itself.

    field: the path of the arguments, named by InvalidRequest, which is raised for what no template
    could write: half a surrogate pair, or a nesting that is too deep.
    """
    value = arguments
    if isinstance(arguments, str):
        try:
            value = json.loads(
                arguments or "null", parse_constant=_refuse_constant, parse_float=_finite
            )
        except RecursionError:
            raise _too_deep(field) from None
        except ValueError:
            return arguments
        if "\\u" in arguments:
            _check_unicode(value, field=field)
    if isinstance(value, str):
        # A text within JSON: what the client sent says that it is one.
        return arguments
    if isinstance(value, dict | list):
        _check_nesting(value, field=field)
    return {} if value is None else value


def write_arguments(arguments: Any, *, field: str) -> str:
    """The arguments as JSON text, as they were sent if they were text."""
    value = read_arguments(arguments, field=field)
    if isinstance(arguments, str) and value != {}:
        return arguments
    return json.dumps(value, ensure_ascii=False)


def strings_within(value: Any) -> Iterator[str]:
    """Every text in lists and objects, and the value itself if it is one."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings_within(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_within(item)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{digits} is out of range")
    return value


def _check_unicode(value: Any, *, field: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{field}: half a surrogate pair is no text", param=field) from error
    except RecursionError:
        raise _too_deep(field) from None


def _check_nesting(value: Any, *, field: str) -> None:
    level = [value]
    for _ in range(MAX_NESTING):
        below = [
            item
            for outer in level
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, dict | list)
        ]
        if not below:
            return
        level = below
    raise _too_deep(field)


def _too_deep(field: str) -> InvalidRequest:
    return InvalidRequest(
        f"{field}: nested deeper than {MAX_NESTING} levels, which is not supported", param=field
    )
