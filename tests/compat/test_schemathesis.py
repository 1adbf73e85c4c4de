"""Schemathesis reads /openapi.json and tries to prove it wrong on a real server that needs a key.

No answer may have a status, media type, header or field that the document does not have; nothing
that the document rules out may be accepted; nothing may end with 5xx, but for 504 when a generated
`timeout` is over; and no operation that needs a key may answer without one.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import RunningServer

# What is valid by the document may still be refused: fields that do not go together, a format that
# matches nothing, more answers than there are places. So acceptance is not checked.
_CONFIG = """
seed = 1

[phases.stateful]
enabled = false

[generation]
deterministic = true
max-examples = 40

[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 504]
positive_data_acceptance.enabled = false
"""
_FLAGS = ["--max-total-tokens", "64", "--max-concurrent-requests", "4", "--max-queue-size", "4"]
# A list that is longer than the document allows is read, and refused for what it is.
_FLAGS += ["--kv-cache-memory", "16MiB", "--payload-limit", "4000000"]
_KEY = "sesame"
_SECONDS = 540
_LARGE = ("/v1/chat/completions", "/v1/completions")


@pytest.fixture(scope="module")
def server(
    fleet: list[RunningServer], server_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("fuzzed") / "server.log"
    command = [server_python, "-m", "millstream"]
    server = RunningServer(_FLAGS, log, command=command, variables={"MILLSTREAM_API_KEY": _KEY})
    fleet.append(server)
    yield server
    fleet.remove(server)
    server.stop()


@pytest.mark.parametrize("path", [*_LARGE, "all others"])
def test_the_document_is_true(server: RunningServer, tmp_path: Path, path: str) -> None:
    (tmp_path / "schemathesis.toml").write_text(_CONFIG, encoding="utf-8")
    run = [str(Path(sys.executable).with_name("st")), "run", f"{server.url}/openapi.json"]
    run += ["--header", f"Authorization: Bearer {_KEY}", "--no-color", "--no-shrink"]
    run += ["--continue-on-failure", "--warnings", "off"]
    if path in _LARGE:
        run += ["--include-path", path]
    else:
        run += [option for large in _LARGE for option in ("--exclude-path", large)]
    result = subprocess.run(
        run, cwd=tmp_path, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No issues found" in result.stdout, result.stdout
    server.wait_idle()
    server.assert_clean_log()
