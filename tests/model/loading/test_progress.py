"""How far loading is, where nobody sees a bar."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import pytest
from transformers.utils import logging as transformers_logging

from millstream.model.loading import progress
from millstream.model.loading.model import load_model
from millstream.settings import Settings
from tests.model.architectures import make_model


def test_a_line_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    ticks = itertools.count(step=2.0)  # seconds that each item takes
    caplog.set_level(logging.INFO, logger="millstream")
    items = progress.logged(range(8), what="loading weights", total=8, clock=lambda: next(ticks))
    assert list(items) == list(range(8))
    assert caplog.messages == [
        "loading weights: 2 of 8 (25 %)",
        "loading weights: 5 of 8 (62 %)",
    ]


@pytest.mark.parametrize("level", ["INFO", "WARNING"])
def test_lines_come_while_transformers_loads(
    level: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("llama", tmp_path, num_hidden_layers=2)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    caplog.set_level(level, logger="millstream")
    had_bar = transformers_logging.is_progress_bar_enabled()
    reports: list[tuple[str, float | None]] = []
    settings = Settings(model_id=str(tmp_path), threads=1)
    loaded = load_model(
        tmp_path, settings, report=lambda step, fraction=None: reports.append((step, fraction))
    )
    fractions = [fraction for step, fraction in reports if step == "loading weights"]
    assert len(fractions) > 3, reports
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert reports[0] == ("reading the model's folder", None)
    lines = [line for line in caplog.messages if line.startswith("loading weights: ")]
    count = len({parameter for parameter, _ in loaded.model.named_parameters()})
    assert bool(lines) == (level == "INFO")
    if lines:
        assert len(lines) >= count / 2
        assert f"of {len(lines)} " in lines[-1]
    assert transformers_logging.is_progress_bar_enabled() == had_bar
    assert transformers_logging.set_tqdm_hook(None) is None, "the hook is taken back"
