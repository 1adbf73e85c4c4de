"""Every row of the table of hints is sent; the page about them is the table."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millstream.errors import InvalidRequest
from millstream.intake.hints import HINTS, Hint, is_hint
from millstream.intake.messages.request import parse_messages_request
from millstream.intake.responses.request import parse_response_request

PAGE = (Path(__file__).parents[2] / "docs" / "hints.md").read_text(encoding="utf-8")
BODIES: dict[str, dict[str, Any]] = {
    "responses": {"input": "Hi", "stream": True},
    "messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
}
PARSERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "responses": parse_response_request,
    "messages": parse_messages_request,
}
TOOLS: dict[str, dict[str, Any]] = {
    "responses": {"type": "function", "name": "f"},
    "messages": {"name": "f", "input_schema": {}},
}
THOUGHT = {"type": "thinking", "thinking": "Hm."}
IN_BODY = [hint for hint in HINTS if not hint.field.startswith("header ")]


def sent(hint: Hint, value: Any) -> dict[str, Any]:
    """A body that sends a value of the hint, and has no other."""
    body = {**BODIES[hint.api]}
    head, *rest = hint.field.split(".")
    name = head.removesuffix("[]")
    if not rest:
        body[name] = [value] if head.endswith("[]") else value
    elif head == "tools[]":
        body[name] = [{**TOOLS[hint.api], rest[0]: value}]
    elif head == "system[]":
        body[name] = [{"type": "text", "text": "Hi", rest[0]: value}]
    elif head == "messages[]":
        said = {"role": "assistant", "content": [{**THOUGHT, rest[1]: value}]}
        body[name] = [said, *body[name]]
    elif head == "thinking":
        body[name] = {"type": "enabled", rest[0]: value}
    else:
        body[name] = {rest[0]: value}
    return body


def named(hint: Hint) -> str:
    return f"{hint.api} {hint.field}"


@pytest.mark.parametrize("hint", IN_BODY, ids=named)
def test_values_of_a_row_are_taken(hint: Hint) -> None:
    for value in (
        [*hint.examples, None] if not hint.field.endswith(("[]", "type")) else hint.examples
    ):
        PARSERS[hint.api](sent(hint, value))


@pytest.mark.parametrize("hint", IN_BODY, ids=named)
def test_other_values_are_refused_by_name(hint: Hint) -> None:
    if hint.values == "anything":
        pytest.skip("a row that takes any value")
    for value in (["no"], 7.5, "no such value", {"no": 1}):
        if hint.takes(value):
            continue
        with pytest.raises(InvalidRequest) as refusal:
            PARSERS[hint.api](sent(hint, value))
        path = hint.field.replace("[]", "[0]")
        assert str(refusal.value.param).startswith(path)


def test_a_row_is_there_once() -> None:
    assert len({named(hint) for hint in HINTS}) == len(HINTS)


def test_names_that_begin_alike_are_one_value() -> None:
    assert is_hint("responses", "tools[].type", "web_search_2025_08_26")
    assert not is_hint("responses", "tools[].type", "mcp_other")
    assert not is_hint("responses", "tools[].type", "function")


def test_true_is_no_one() -> None:
    words = {"sent_by": "x", "meaning": "y"}
    hint = Hint(api="responses", field="x", values=(1, "a*"), **words)
    assert hint.takes(1)
    assert not hint.takes(True)
    assert hint.takes("ab")
    assert not Hint(api="responses", field="x", values="integer", **words).takes(True)


def rows(api: str) -> list[str]:
    return [
        f"| `{hint.field}` | {_values(hint)} | {hint.sent_by} | {hint.meaning} |"
        for hint in HINTS
        if hint.api == api
    ]


def _values(hint: Hint) -> str:
    if isinstance(hint.values, str):
        return hint.values
    return ", ".join(f"`{value}`" for value in hint.values)


@pytest.mark.parametrize("api", sorted({hint.api for hint in HINTS}))
def test_the_page_is_the_table(api: str) -> None:
    section = PAGE.split(f"## {api.capitalize()}\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `.*", section, re.M) == rows(api)
