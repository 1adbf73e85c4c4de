"""The programs of frameworks/: one for each framework, each of its functions is a case.

They run in an environment of their own (.venv-compat/frameworks), since what the frameworks want
of their dependencies does not go together with the other clients. A program runs once.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "frameworks"
PYTHON = Path(__file__).parents[2] / ".venv-compat" / "frameworks" / "bin" / "python"
FUNCTION = re.compile(r"^@case\n(?:async )?def (\w+)", re.M)

CASES = [
    f"{program.stem}: {name.replace('_', ' ')}"
    for program in sorted(PROGRAMS.glob("*_cases.py"))
    for name in FUNCTION.findall(program.read_text(encoding="utf-8"))
]

pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason="no frameworks here")


@pytest.fixture(scope="module")
def failures(
    demo_url: str, long_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, str | None]]:
    """Runs a program: failure, or None, of each of its cases by name."""
    home = tmp_path_factory.mktemp("home")
    variables = {"DEMO_URL": demo_url, "SCRIPTED_URL": long_url, "HOME": str(home)}
    # Nothing leaves the machine, and nothing is looked for elsewhere.
    variables |= {"HAYSTACK_TELEMETRY_ENABLED": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}

    @cache
    def run(program: str) -> dict[str, str | None]:
        done = subprocess.run(
            [PYTHON, PROGRAMS / f"{program}.py"],
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"name":')]
        return {case["name"]: case["failure"] for case in map(json.loads, lines)}

    return run


@pytest.mark.parametrize("case", CASES)
def test_case(case: str, failures: Callable[[str], dict[str, str | None]]) -> None:
    program, _, name = case.partition(": ")
    assert failures(program)[name] is None, failures(program)[name]
