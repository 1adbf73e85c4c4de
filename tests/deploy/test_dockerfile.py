"""The Dockerfile, as far as it can be checked without a container engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from millstream.command_line import build_parser
from tests.deploy.build_context import sent_files
from tests.deploy.served import PORT, ROOT, is_read

_MOST_BYTES = 20_000_000
_SECRET = re.compile(
    r"(^|/)(\.env|secret\.env|id_[a-z0-9]+|\.netrc|\.npmrc|\.git)(/|$)|\.(pem|key)$"
)


def instructions() -> list[tuple[str, str]]:
    """Each instruction's name and arguments, its lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line]


def arguments(name: str) -> list[str]:
    return [given for each, given in instructions() if each == name]


def test_what_is_copied_is_there_and_is_sent_to_the_builder() -> None:
    copied = [given.split()[:-1] for given in arguments("COPY") if "--from" not in given]
    names = {name for names in copied for name in names}
    sent = sent_files(ROOT)
    assert {file.split("/")[0] for file in sent} == names
    # What an installation needs of the project: its description names these files.
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert {"pyproject.toml", "README.md", "LICENSE", "server"} <= names
    assert 'readme = "README.md"' in project
    assert 'license-files = ["LICENSE"]' in project


def test_little_is_sent_to_the_builder_and_nothing_secret() -> None:
    sent = sent_files(ROOT)
    assert sum((ROOT / file).stat().st_size for file in sent) < _MOST_BYTES
    assert not [file for file in sent if _SECRET.search(file)]
    # Nothing that one machine has and another has not.
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        assert set(sent) <= set(done.stdout.split("\0"))


def test_what_lies_about_is_not_sent(tmp_path: Path) -> None:
    for name in (".dockerignore", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    inside = ["server/own/__pycache__/a.pyc", "server/.env", "server/a.py", "server/b.state"]
    outside = [".env", "deploy/.env", ".venv/bin/python", "tests/server/a.py", "key.pem"]
    for name in inside + outside:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sent_files(tmp_path) == ["pyproject.toml", "server/a.py"]


def test_the_image_is_pinned_and_runs_as_nobody_special() -> None:
    bases = {given.split()[0] for given in arguments("FROM")}
    assert len(bases) == 1
    (base,) = bases
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base), "a release, not what is newest"
    assert all("--constraint" in run for run in arguments("RUN") if "pip install" in run)
    (user,) = arguments("USER")
    number, _ = user.split(":")
    assert int(number) > 0
    assert f"useradd --uid {number}" in " ".join(arguments("RUN"))
    last_run = max(place for place, (name, _) in enumerate(instructions()) if name == "RUN")
    assert instructions().index(("USER", user)) > last_run


def test_no_address_is_named_from_which_packages_come() -> None:
    """Whoever builds it has an index, and may have one of their own."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"https?://(?!127\.0\.0\.1)\S+", text) == []
    before_torch = text.partition("install --no-cache-dir --constraint")[0]
    assert "ARG PIP_EXTRA_INDEX_URL" in before_torch


@pytest.mark.parametrize(("cuda", "wanted"), [(None, "cpu"), ("12.8", "cuda")])
def test_torch_is_of_the_build_that_is_wanted(
    cuda: str | None, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = [run for run in arguments("RUN") if "torch.version" in run]
    code = run.split('python -c "')[1].removesuffix('"')
    found = SimpleNamespace(version=SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "torch", found)
    assert exit_of(code.replace("${ACCELERATOR}", wanted)) is False
    other = {"cpu": "cuda", "cuda": "cpu"}[wanted]
    problem = exit_of(code.replace("${ACCELERATOR}", other))
    assert problem == f"torch is built for {wanted}, not for {other}: see PIP_EXTRA_INDEX_URL"


def exit_of(code: str) -> object:
    with pytest.raises(SystemExit) as ended:
        exec(code, {})
    return ended.value.code


def test_extras_that_are_installed_exist() -> None:
    extras = re.findall(r"/build\[(.*?)\]", " ".join(arguments("RUN")))[0].split(",")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{extra} = \[", project, re.M) for extra in extras)


def test_the_container_starts_the_server_where_others_reach_it() -> None:
    (entry,) = arguments("ENTRYPOINT")
    first, separator, program, *flags = json.loads(entry)
    # The first process of a container gets no signal that it does not ask for: not the server.
    assert (first, separator, program) == ("tini", "--", "millstream")
    assert "tini" in " ".join(arguments("RUN")).split()
    # What follows the image's name on the command line are flags of the server.
    options = build_parser().parse_args([*flags, "--port", "9000"])
    assert (options.command, options.port) == ("serve", "9000")
    (variables,) = arguments("ENV")
    given = dict(pair.split("=", 1) for pair in variables.split())
    assert [n for n in given if not is_read(n) and not n.startswith("NVIDIA_")] == []
    assert given["MILLSTREAM_HOST"] == "0.0.0.0"
    assert arguments("EXPOSE") == [str(PORT)]
    (volume,) = arguments("VOLUME")
    assert volume == given["HOME"]
    (check,) = arguments("HEALTHCHECK")
    _, _, code = json.loads(check.split("CMD ", 1)[1])
    compile(code, "HEALTHCHECK", "exec")
