"""The unit in deploy/systemd/: what it names exists, and systemd takes it."""

from __future__ import annotations

import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from millstream.command_line import build_parser
from millstream.errors import StartupError
from tests.deploy.served import DEPLOY, PREFIX, SETTINGS, drain_seconds, is_read, variables_of

UNIT = DEPLOY / "systemd" / "millstream.service"
PROGRAM = "/opt/millstream/bin/millstream"


def options() -> dict[str, list[str]]:
    """The values of each option, in their order."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            name, value = line.split("=", 1)
            found[name].append(value)
    return found


def test_it_starts_the_server() -> None:
    (started,) = options()["ExecStart"]
    program, *arguments = started.split()
    assert program == PROGRAM
    assert build_parser().parse_args(arguments).command == "serve"
    assert "pip install millstream" in UNIT.read_text(encoding="utf-8")


def test_every_variable_exists() -> None:
    given = [pair.split("=")[0] for text in options()["Environment"] for pair in text.split()]
    example = variables_of("systemd/millstream.env.example")
    assert [name for name in (*given, *example) if not is_read(name)] == []
    assert options()["EnvironmentFile"] == ["-/etc/millstream/millstream.env"]
    kept = f"/var/lib/{options()['StateDirectory'][0]}"
    assert f"HOME={kept}" in options()["Environment"][0]


def test_it_may_drain_while_its_engine_answers() -> None:
    (seconds,) = options()["TimeoutStopSec"]
    given = variables_of("systemd/millstream.env.example")
    grace = given[f"{PREFIX}GRACEFUL_TERMINATION_TIMEOUT"]
    assert float(grace) == SETTINGS["graceful_termination_timeout"].default
    assert float(seconds) > drain_seconds(grace)
    # With any other, systemd ends the engine in the same moment.
    assert options()["KillMode"] == ["mixed"]


def test_it_is_not_started_again_when_that_cannot_help() -> None:
    assert options()["Restart"] == ["on-failure"]
    never = options()["RestartPreventExitStatus"][0].split()
    assert str(StartupError("").exit_status) in never
    assert "2" in never, "a wrong flag"
    assert "3" not in never, "an engine that ended again and again"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_it(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    # The program is not there, and systemd looks for it.
    unit.write_text(
        UNIT.read_text(encoding="utf-8").replace(PROGRAM, "/bin/true"), encoding="utf-8"
    )
    verified = analyze("verify", str(unit))
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    exposed = analyze("security", "--offline=true", "--threshold=20", str(unit))
    assert exposed.returncode == 0, exposed.stdout + exposed.stderr


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
