"""The suites in js/: each file is run once by Node's own test runner, each of its tests is a case.

The cases are found by running the files with LIST_TESTS, which needs no server.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

JS = Path(__file__).parent / "js"
FILES = sorted(file.name for file in JS.glob("*.test.mjs"))

TEST = ("--test", "--test-reporter", "./reporter.mjs")


def run_node(file: str, *flags: str, **environment: str) -> dict[str, str | None]:
    """Failure, or None, of each test of a file by name."""
    done = subprocess.run(
        ["node", *flags, file],
        cwd=JS,
        env=os.environ | {"SCRIPTED_URL": "http://none", "DEMO_URL": "http://none"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name":')]
    assert found, done.stderr
    return {test["name"]: test["failure"] for test in found}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if shutil.which("node") is None or not (JS / "node_modules").is_dir():
        metafunc.parametrize("case", [pytest.param("", marks=pytest.mark.skip("no Node here"))])
        return
    names = {file: run_node(file, LIST_TESTS="1") for file in FILES}
    cases = [f"{file.removesuffix('.mjs')}: {name}" for file in FILES for name in names[file]]
    metafunc.parametrize("case", cases)


@pytest.fixture(scope="session")
def results(scripted_url: str, demo_url: str) -> dict[str, str | None]:
    urls = {"SCRIPTED_URL": scripted_url, "DEMO_URL": demo_url}
    return {
        f"{file.removesuffix('.mjs')}: {name}": failure
        for file in FILES
        for name, failure in run_node(file, *TEST, **urls).items()
    }


def test_case(case: str, results: dict[str, str | None]) -> None:
    assert results[case] is None, results[case]
