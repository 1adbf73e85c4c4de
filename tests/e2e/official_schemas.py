"""Answers held against OpenAI's own document (schemas/), and against what Open Responses wants."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

_FILE = Path(__file__).parent / "schemas" / "openai_responses.json"

_MAY_BE_NULL = frozenset(
    (
        "completed_at",
        "error",
        "incomplete_details",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "previous_response_id",
        "prompt_cache_key",
        "reasoning",
        "safety_identifier",
        "usage",
        "user",
    )
)
_NEVER_NULL = frozenset(
    (
        "background",
        "created_at",
        "frequency_penalty",
        "id",
        "metadata",
        "model",
        "object",
        "output",
        "parallel_tool_calls",
        "presence_penalty",
        "service_tier",
        "status",
        "store",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
    )
)
"""With those that may be null: without them a response is none for Open Responses."""
_NULL_IN_EXAMPLES = ("usage", "user")
"""Texts and objects for the schemas of the document, and null in all its examples."""


def check(name: str, value: Any) -> None:
    """Fails where the value is not what the schema of this name allows."""
    errors = sorted(_validator(name).iter_errors(value), key=lambda error: list(error.path))
    assert not errors, "\n".join(f"{error.json_path}: {error.message[:300]}" for error in errors)


def check_response(response: Any) -> None:
    given = dict(response)
    for name in _NULL_IN_EXAMPLES:
        if given[name] is None:
            del given[name]
    check("Response", given)
    assert response.keys() >= _MAY_BE_NULL | _NEVER_NULL, response.keys()
    nulls = {name for name in _NEVER_NULL if response[name] is None}
    assert not nulls, nulls


def check_event(event: Any) -> None:
    given = dict(event)
    if "response" in event:
        check_response(event["response"])
        given["response"] = {
            name: value
            for name, value in event["response"].items()
            if value is not None or name not in _NULL_IN_EXAMPLES
        }
    check(_document()["events"][event["type"]], given)


@cache
def _document() -> Any:
    return json.loads(_FILE.read_text(encoding="utf-8"))


@cache
def _validator(name: str) -> Draft202012Validator:
    components = {"components": {"schemas": _document()["schemas"]}}
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", **components})
