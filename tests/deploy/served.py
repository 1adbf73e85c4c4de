"""What the server has of what files in deploy/ name: flags, variables, ports, times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import constants

from millstream.api.wire import server
from millstream.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SETTINGS = Settings.model_fields
PREFIX = "MILLSTREAM_"
PORT: int = SETTINGS["port"].default
CLOSING_SECONDS = 2 * server.CLOSING_SECONDS
"""What a drain may take beyond its grace: to end what is left, and to close connections."""


def load(name: str) -> Any:
    """The YAML file of this name in deploy/; of several documents the only one there is."""
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def variables_of(name: str) -> dict[str, str]:
    """The variables of an example in deploy/, those that are commented out as well."""
    lines = (DEPLOY / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.removeprefix("#").split("=", 1) for line in lines if "=" in line]
    return {key: value for key, value in pairs if " " not in key}


def is_read(variable: str) -> bool:
    """Whether the server, or the library that loads models of the Hub, reads such a variable."""
    if variable.startswith(PREFIX):
        return variable.removeprefix(PREFIX).lower() in SETTINGS
    if variable in ("HF_HOME", "HF_TOKEN"):
        source = Path(constants.__file__).parent
        files = [source / "constants.py", source / "utils" / "_auth.py"]
        return any(f'"{variable}"' in file.read_text(encoding="utf-8") for file in files)
    return variable in ("HOME", "PATH", "PYTHONUNBUFFERED")


def drain_seconds(given: str | None) -> float:
    """From SIGTERM to the end at the latest, with the flag of this value."""
    grace = SETTINGS["graceful_termination_timeout"].default if given is None else float(given)
    return float(grace + CLOSING_SECONDS)
