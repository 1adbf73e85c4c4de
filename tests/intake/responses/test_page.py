"""docs/api.md names every field and item of the Responses API."""

from __future__ import annotations

import re
from pathlib import Path

from millstream.intake.hints import HINTS
from millstream.intake.responses.item_kinds import ITEM_KINDS
from millstream.intake.responses.request import ResponseRequest, parse_response_request
from millstream.intake.sampling_fields import DrawingFields

API = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
SECTION = API.split("\n## Responses\n")[1].split("\n## ")[0]


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
    taken = {"context_management": [], "moderation": None, "prompt": None}
    named = re.findall(r"`([a-z_]+)`", part("refused by responses"))
    assert named == list(taken)
    parse_response_request({"input": "Hi", **taken})
