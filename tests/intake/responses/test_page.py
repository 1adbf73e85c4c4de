"""docs/api.md names every field and item of the Responses API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

from openai.types.responses.custom_tool_param import CustomToolParam
from openai.types.responses.function_tool_param import FunctionToolParam
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from openai.types.responses.response_input_item_param import ResponseInputItemParam
from openai.types.responses.tool_param import ToolParam

from millstream.intake.hints import HINTS, is_hint
from millstream.intake.responses.item_kinds import ITEM_KINDS
from millstream.intake.responses.request import ResponseRequest, parse_response_request
from millstream.intake.sampling_fields import DrawingFields

API = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
SECTION = API.split("\n## Responses\n")[1].split("\n## ")[0]
UNSUPPORTED = ["access_programs", "context_management", "image", "moderation", "prompt"]


def part(title: str) -> str:
    """What stands between the marks of a part."""
    return SECTION.split(f"<!-- {title}:")[1].split("-->")[1].split("<!-- end")[0]


def test_every_field_is_in_a_table_or_a_hint() -> None:
    table = SECTION.split("<!-- fields as for chat")[0]
    named = re.findall(r"^\| `([a-z_]+)` \|", table, re.M)
    assert len(named) == len(set(named))
    same = re.findall(r"`([a-z_]+)`", part("fields as for chat"))
    assert set(same) == set(DrawingFields.model_fields)
    hints = {hint.field for hint in HINTS if hint.api == "responses"}
    fields = {field.alias or name for name, field in ResponseRequest.model_fields.items()}
    assert fields == {*named, *same, *(field for field in hints if field in fields)}
    assert hints.isdisjoint(named)


def test_rows_are_complete() -> None:
    for row in re.findall(r"^\| `.*", SECTION.split("<!-- items")[0], re.M):
        _, _, values, _, source, effect, _ = (cell.strip() for cell in row.split("|"))
        assert values
        assert source
        assert effect


def test_items_are_those_that_are_read() -> None:
    assert re.findall(r"^\| `([a-z_]+)` \|", part("items"), re.M) == list(ITEM_KINDS)


def test_refused_fields_are_named_with_what_is_taken() -> None:
    taken: dict[str, Any] = dict.fromkeys(UNSUPPORTED) | {"context_management": []}
    named = re.findall(r"`([a-z_]+)`", part("refused by responses"))
    assert named == list(taken)
    parse_response_request({"input": "Hi", **taken})


def kinds(union: Any) -> list[tuple[str, set[str]]]:
    """The types that a union of the SDK has, each with its members."""
    members = [get_type_hints(one) for one in get_args(union)]
    return [
        (kind, set(hints))
        for hints in members
        for kind in get_args(hints.get("type"))
        if isinstance(kind, str)
    ]


def test_the_sdk_knows_no_field_that_is_unknown_here() -> None:
    fields = {field.alias or name for name, field in ResponseRequest.model_fields.items()}
    assert set(get_type_hints(ResponseCreateParamsNonStreaming)) <= {*fields, *UNSUPPORTED}


def test_items_have_every_key_that_the_sdk_gives_them() -> None:
    for kind, members in kinds(ResponseInputItemParam):
        if kind in ITEM_KINDS:
            fields = ITEM_KINDS[kind].model_fields.items()
            assert members <= {field.alias or name for name, field in fields}, kind


def test_every_tool_of_the_sdk_is_offered_or_a_hint() -> None:
    for kind, _ in kinds(ToolParam):
        is_offered = kind in ("function", "custom", "namespace")
        assert is_offered != is_hint("responses", "tools[].type", kind), kind


def test_tools_have_every_key_that_the_sdk_gives_them() -> None:
    values = {"parameters": {}, "format": {"type": "text"}, "description": "d", "strict": True}
    values |= {"allowed_callers": [], "output_schema": {}, "defer_loading": True, "async": True}
    for kind, members in (("function", FunctionToolParam), ("custom", CustomToolParam)):
        keys = set(get_type_hints(members)) - {"type", "name"}
        tool = {"type": kind, "name": "f", **{key: values[key] for key in keys}}
        parse_response_request({"input": "Hi", "tools": [tool]})
