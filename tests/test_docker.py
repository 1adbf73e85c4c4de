"""The Dockerfile, as far as it can be checked without a container engine."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path

from millstream.command_line import build_parser
from millstream.settings import Settings

ROOT = Path(__file__).parent.parent


def instructions() -> list[tuple[str, str]]:
    """Each instruction's name and arguments, its lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line]


def arguments(name: str) -> list[str]:
    return [given for each, given in instructions() if each == name]


def test_what_is_copied_is_there_and_is_sent_to_the_builder() -> None:
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert sent[0] == "*", "nothing is sent that is not named"
    copied = [given.split()[:-1] for given in arguments("COPY") if "--from" not in given]
    names = {name for names in copied for name in names}
    assert names == {line[1:] for line in sent if line.startswith("!")}
    assert all((ROOT / name).exists() for name in names)
    # What an installation needs of the project: its description names these files.
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert {"pyproject.toml", "README.md", "LICENSE", "server"} <= names
    assert 'readme = "README.md"' in project
    assert 'license-files = ["LICENSE"]' in project


def test_the_image_is_pinned_and_runs_as_nobody_special() -> None:
    bases = {given.split()[0] for given in arguments("FROM")}
    assert len(bases) == 1
    (base,) = bases
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base), "a release, not what is newest"
    assert all("--constraint" in run for run in arguments("RUN") if "pip install" in run)
    user = arguments("USER")
    assert user == ["millstream"]
    assert (
        instructions().index(("USER", "millstream"))
        > [number for number, (name, _) in enumerate(instructions()) if name == "RUN"].pop()
    )


def test_no_address_is_named_from_which_packages_come() -> None:
    """Whoever builds it has an index, and may have one of their own."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"https?://(?!127\.0\.0\.1)\S+", text) == []
    before_torch = text.partition("install --no-cache-dir --constraint")[0]
    assert "ARG PIP_EXTRA_INDEX_URL" in before_torch


def test_the_container_starts_the_server_where_others_reach_it() -> None:
    (entry,) = arguments("ENTRYPOINT")
    program, *flags = json.loads(entry)
    assert program == "millstream"
    # What follows the image's name on the command line are flags of the server.
    options = build_parser().parse_args([*flags, "--port", "9000"])
    assert (options.command, options.port) == ("serve", "9000")
    (variables,) = arguments("ENV")
    given = dict(pair.split("=", 1) for pair in variables.split())
    own = {n.removeprefix("MILLSTREAM_").lower() for n in given if fnmatch(n, "MILLSTREAM_*")}
    assert own <= set(Settings.model_fields)
    assert given["MILLSTREAM_HOST"] == "0.0.0.0"
    assert arguments("EXPOSE") == [str(Settings.model_fields["port"].default)]
    (volume,) = arguments("VOLUME")
    assert volume == given["HOME"]
    (check,) = arguments("HEALTHCHECK")
    _, _, code = json.loads(check.split("CMD ", 1)[1])
    compile(code, "HEALTHCHECK", "exec")
