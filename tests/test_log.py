"""Entries of the log cannot be made by those whose texts are in them."""

from __future__ import annotations

import json
import logging

import pytest

from millstream.log import configure_logging

FORGED = "2026-01-01 00:00:00,000 ERROR millstream: the keys are k1, k2"


@pytest.fixture(params=["text", "json"])
def form(request: pytest.FixtureRequest) -> str:
    configure_logging("info", form=request.param)
    return str(request.param)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\x1b[2K\r"])
def test_no_text_begins_an_entry(form: str, end: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", form=form)
    log = logging.getLogger("millstream.test")
    log.warning("client said %s", f"x{end}{FORGED}")
    try:
        raise ValueError(f"x{end}{FORGED}")
    except ValueError:
        log.exception("failed")
    written = capsys.readouterr().err
    begun = [line for line in written.splitlines() if line and not line.startswith(" ")]
    assert len(begun) == 2, begun
    if form == "json":
        assert [json.loads(line)["logger"] for line in begun] == ["millstream.test"] * 2
    assert not set("\r\x0b\x0c\x1b\x85\u2028") & set(written)
