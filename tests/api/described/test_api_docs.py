"""docs/api.md names every field: those that are accepted, and those that are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

from millstream.core.status import EngineInfo
from millstream.intake.fields.delivery import StreamOptions
from millstream.intake.fields.unsupported import NEUTRAL, UNSUPPORTED
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.completion import CompletionRequest

API = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
FIELDS = API.split("## Request fields")[1].split("## The answer")[0]
# The table of keys within messages has a test of its own.
FIELDS = re.sub(r"^\| key \|.*?\n\n", "", FIELDS, flags=re.M | re.S)
COMPLETIONS = API.split("## Text completions")[1].split("\n## ")[0]


def test_field_tables_are_the_schema() -> None:
    named = re.findall(r"^\| `([a-z_]+)` \|", FIELDS, re.M)
    assert len(named) == len(set(named))
    assert set(named) == set(ChatRequest.model_fields)


def test_completions_are_chat_but_for_what_is_said() -> None:
    chat, own = ChatRequest.model_fields, CompletionRequest.model_fields
    named = re.findall(r"^\| `([a-z_]+)` \|", COMPLETIONS, re.M)
    assert len(named) == len(set(named))
    assert set(named) == {
        name for name, field in own.items() if name not in chat or repr(field) != repr(chat[name])
    }
    alone = COMPLETIONS.split("<!-- fields of chat alone")[1].split("-->")[1].split("<!-- end")[0]
    assert set(re.findall(r"`([a-z_]+)`", alone)) == chat.keys() - own.keys()


def test_rows_are_complete() -> None:
    for row in re.findall(r"^\| `.*", FIELDS + COMPLETIONS, re.M):
        _, _, values, _, source, effect, _ = (cell.strip() for cell in row.split("|"))
        assert values
        assert source
        assert effect


def test_stream_options_are_named() -> None:
    text = FIELDS.split("`stream_options` has ")[1].split("\n\n")[0]
    names = set(re.findall(r"`([a-z_]+)`", text)) - {"usage", "false"}
    assert names == set(StreamOptions.model_fields)


def test_refused_fields_are_named_with_what_is_accepted() -> None:
    text = FIELDS.split("<!-- refused:")[1].split("-->")[1].split("<!-- end")[0]
    found = {
        name: tuple(json.loads(value) for value in re.findall(r"`([^`]+)`", values or ""))
        for name, values in re.findall(r"`([a-z_]+)`(?: \((`[^)]*`)\))?", text)
    }
    assert set(found) == UNSUPPORTED
    assert {name: values for name, values in found.items() if values} == NEUTRAL


def test_the_model_s_defaults_are_those_of_the_engine() -> None:
    """What says "model" is a default of EngineInfo with that value, and the other way round."""
    named = dict(re.findall(r"^\| `([a-z_]+)` \|[^|]*\| model \((\d+)\) \|", FIELDS, re.M))
    assert set(named) == {
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "typical_p",
        "repetition_penalty",
    }
    defaults = EngineInfo.__dataclass_fields__["defaults"].default_factory()
    from_info = {name: getattr(defaults, name) for name in named}
    assert {name: float(value) for name, value in named.items()} == from_info
