"""The dashboard for Grafana by its file. tests/e2e/test_prometheus.py asks its queries, and in
tests/compat/test_deploy.py Grafana's own types read it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/millstream.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
PANELS = DASHBOARD["panels"]
FIGURES = [panel for panel in PANELS if panel["type"] != "row"]
NAME = re.compile(r"(?<![\w:])(?:millstream|process)_\w+")
UNITS = {
    r"_seconds_(bucket|sum)": "s",
    r"_ratio|_cached_blocks|_hits_total": "percentunit",
    r"_bytes": "bytes",
    r"rate\(millstream_(http_requests|requests_\w+)_total": "reqps",
    r"rate\(millstream_preemptions_total": "ops",
}
"""What is asked for -> its unit; everything else is a number of things."""


def expressions(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def ids(panels: list[dict[str, Any]]) -> list[str]:
    return [panel["title"] for panel in panels]


@pytest.mark.parametrize("panel", FIGURES, ids=ids(FIGURES))
def test_a_panel_has_the_unit_of_what_it_shows(panel: dict[str, Any]) -> None:
    config = panel["fieldConfig"]
    other = {
        each["matcher"]["options"]: change["value"]
        for each in config["overrides"]
        for change in each["properties"]
        if (each["matcher"]["id"], change["id"]) == ("byFrameRefID", "unit")
    }
    for target in panel["targets"]:
        asked = target["expr"]
        unit = next((u for names, u in UNITS.items() if re.search(names, asked)), "short")
        assert other.get(target["refId"], config["defaults"]["unit"]) == unit, asked


@pytest.mark.parametrize("panel", FIGURES, ids=ids(FIGURES))
def test_a_panel_asks_for_what_there_is_of_the_chosen_servers(panel: dict[str, Any]) -> None:
    for expression in expressions(panel):
        names = NAME.findall(expression)
        assert names
        for name in names:
            assert f"| `{re.sub('_(bucket|sum|count)$', '', name)}` |" in PAGE
        chosen = re.findall(r'\w+{job=~"\$job",instance=~"\$instance"[,}]', expression)
        assert len(chosen) == len(names), "another server's is shown, too"


@pytest.mark.parametrize("panel", FIGURES, ids=ids(FIGURES))
def test_several_lines_have_names(panel: dict[str, Any]) -> None:
    targets = panel["targets"]
    names = [target["legendFormat"] for target in targets]
    assert len(set(names)) == len(names)
    for expression, name in zip(expressions(panel), names, strict=True):
        for label in re.findall(r"by \(([^)]*)\)", expression):
            told = [part.strip() for part in label.split(",") if part.strip() != "le"]
            assert all("{{" + part + "}}" in name for part in told), name
    assert len({target["refId"] for target in targets}) == len(targets)
    assert all(each["datasource"]["uid"] == "${datasource}" for each in (panel, *targets))


def test_panels_lie_beside_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in PANELS:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert 0 <= x < 24
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
