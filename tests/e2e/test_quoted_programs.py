"""Programs of documents that people start from run as they stand, but for the address.

Those in JavaScript and for Streamlit are run in tests/compat, where their packages are.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.quotations import quoted_programs

from .harness import RunningServer

_HUB_ADDRESS, _CURL_ADDRESS = '"http://127.0.0.1:8080"', " localhost:8080/"


def printed_lines(*command: str) -> list[str]:
    """What a command prints. The hub's client complains that it was not closed, and ends well."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def at(server: RunningServer, program: str) -> str:
    """The program with another address, which is the one thing that changes."""
    assert program.count(_HUB_ADDRESS) == 1
    return program.replace(_HUB_ADDRESS, repr(server.url))


@pytest.fixture(scope="module")
def python_programs() -> list[str]:
    programs = quoted_programs("tgi_streaming", "python")
    assert len(programs) == 2
    return programs


def test_the_synchronous_client(demo_server: RunningServer, python_programs: list[str]) -> None:
    printed = printed_lines(sys.executable, "-c", at(demo_server, python_programs[0]))
    # Each piece is printed as it comes, and ends a line.
    assert "".join(printed) == "".join(str(number) for number in range(1, 11))
    assert len(printed) > 10
    assert "None" not in printed


def test_the_asynchronous_client(demo_server: RunningServer, python_programs: list[str]) -> None:
    # The document forgot an import.
    program = "import asyncio\n" + at(demo_server, python_programs[1])
    assert "this is a test" in printed_lines(sys.executable, "-c", program)[0].lower()


def test_curl(demo_server: RunningServer) -> None:
    (command,) = quoted_programs("tgi_streaming", "curl")
    assert command.count(_CURL_ADDRESS) == 1
    command = command.replace(_CURL_ADDRESS, f" {demo_server.url}/")
    *chunks, last = [
        event.removeprefix("data: ") for event in printed_lines("sh", "-c", command) if event
    ]
    assert last == "[DONE]"
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert "".join(choice["delta"].get("content") or "" for choice in choices)
    assert choices[-1]["finish_reason"] in ("stop", "length")
