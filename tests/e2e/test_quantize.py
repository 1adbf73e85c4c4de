"""A server with quantised weights: it says so, answers, and logs nothing but lines."""

from __future__ import annotations

import pytest

from .harness import RunningServer


@pytest.mark.server("--quantize", "int8")
def test_a_quantised_server_says_so_and_answers(own_server: RunningServer) -> None:
    log = own_server.log()
    assert "(float32 and int8, cpu, 0.00 GiB)" in log
    assert "int8: 56 linear layers quantised, 1 kept as they are" in log
    assert "loaded in" in log
    lines = [line for line in log.splitlines() if " INFO " not in line]
    assert lines == [], "nothing but our own log: no progress bars, no chatter of libraries"
    first = own_server.answer(max_tokens=12)
    assert first
    assert own_server.answer(max_tokens=12) == first


@pytest.mark.server("--quantize", "int4", "--log-level", "warning")
def test_only_warnings_at_log_level_warning(own_server: RunningServer) -> None:
    assert own_server.log() == ""
    assert own_server.answer(max_tokens=4)
