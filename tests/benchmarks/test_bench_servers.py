"""Servers as processes: started, waited for, ended; peers installed or reported."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.peers import MILLSTREAM, PEERS, Server, ServerProblem, prepare, version
from benchmarks.servers import Setting, running

SCRIPT = str(Path(__file__).with_name("chat_server.py"))
PYTHON = Path(sys.executable)
SERVER = Server(
    name="scripted",
    distributions=("pytest",),
    command=("{python}", SCRIPT, "{port}", "scripted"),
    environment={"BODIES": os.devnull, "SEEN": "{threads} {cpus} {model}"},
)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    return Setting(model=model, threads=1, cache=tmp_path / "cache", logs=tmp_path / "logs")


def test_a_server_runs_within_its_block_only(setting: Setting) -> None:
    with running(SERVER, PYTHON, setting, number=1) as started:
        with urllib.request.urlopen(f"{started.base_url}/health", timeout=5) as answer:
            assert answer.status == 200
        assert started.command[1] == SCRIPT
        first = min(os.sched_getaffinity(0))
        assert started.environment["SEEN"] == f"1 {first} {setting.model}"
        assert started.shown.startswith(f"BODIES={os.devnull} SEEN='1 {first} ")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{started.base_url}/health", timeout=5)


def test_a_server_is_ended_when_its_block_fails(setting: Setting) -> None:
    with pytest.raises(KeyError), running(SERVER, PYTHON, setting, number=1) as started:
        raise KeyError
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{started.base_url}/health", timeout=5)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("{python}", "-c", "print('first'); raise SystemExit('no such model')"), "no such model"),
        (("{python}", "-c", "raise SystemExit(3)"), "code 3: no output"),
        (("{python}", "-c", "import time; time.sleep(60)"), "not ready after 1 s"),
        (("{bin}/there-is-no-such-program",), "cannot be started"),
    ],
)
def test_a_server_that_does_not_start_is_a_problem(
    command: tuple[str, ...], reason: str, setting: Setting
) -> None:
    server, hasty = replace(SERVER, command=command), replace(setting, start_seconds=1.0)
    with pytest.raises(ServerProblem, match=reason), running(server, PYTHON, hasty, number=1):
        pytest.fail("it started")


def test_a_model_is_converted_once_and_again_when_it_changes(setting: Setting) -> None:
    copy = "import shutil, sys; shutil.copy(sys.argv[1] + '/model.safetensors', sys.argv[2])"
    server = replace(
        SERVER,
        convert=("{python}", "-c", copy, "{model}", "{file}"),
        environment={"BODIES": os.devnull, "FILE": "{file}"},
    )
    files = []
    for content in (b"weights", b"weights", b"other weights"):
        weights = setting.model / "model.safetensors"
        if weights.read_bytes() != content:
            weights.write_bytes(content)
        with running(server, PYTHON, setting, number=1) as started:
            files.append(Path(started.environment["FILE"]))
    assert files[0] == files[1] != files[2]
    assert [file.read_bytes() for file in files[1:]] == [b"weights", b"other weights"]


def test_a_conversion_that_fails_is_a_problem_and_leaves_no_file(setting: Setting) -> None:
    write = "import sys; open(sys.argv[1], 'w'); sys.exit('error: half done')"
    server = replace(SERVER, convert=("{python}", "-c", write, "{file}"))
    for _ in range(2):
        failing = running(server, PYTHON, setting, number=1)
        with pytest.raises(ServerProblem, match="half done"), failing:
            pytest.fail("it started")


def test_only_libraries_that_are_there_are_preloaded(setting: Setting, tmp_path: Path) -> None:
    library = tmp_path / "empty.so"
    server = replace(SERVER, preload=(str(library), "no_such_library"))
    with running(server, PYTHON, setting, number=1) as started:
        assert "LD_PRELOAD" not in started.environment
    library.touch()
    with running(server, PYTHON, setting, number=1) as started:
        assert started.environment["LD_PRELOAD"] == str(library)


def test_a_peer_has_its_own_environment_or_a_reason(tmp_path: Path) -> None:
    good = replace(SERVER, setup=(("check",),), distributions=("pip",))
    python = prepare(good, tmp_path)
    assert python.is_relative_to(tmp_path)
    assert version(good, python).startswith("pip ")
    witness = python.parent.parent / "witness"
    witness.touch()
    assert prepare(good, tmp_path) == python
    assert witness.exists(), "it was made again"
    bad = replace(good, setup=(("install", "--no-index", "there-is-no-such-package"),))
    for _ in range(2):
        with pytest.raises(ServerProblem, match="there-is-no-such-package"):
            prepare(bad, tmp_path)


def test_all_servers_get_the_same_resources() -> None:
    for server in (MILLSTREAM, *PEERS.values()):
        words = " ".join([*server.command, *server.environment.values()])
        assert "{threads}" in words or "{cpus}" in words, server.name
        assert "bfloat16" in words or server.convert, server.name
        assert "{port}" in words, server.name
        assert "127.0.0.1" in words, server.name


def test_formats_of_one_peer_share_its_environment(tmp_path: Path) -> None:
    peer = PEERS["llama.cpp-Q4_0"]
    folder = tmp_path / "peers" / "llama.cpp"
    folder.mkdir(parents=True)
    (folder / "installed.txt").write_text(repr(peer.setup), encoding="utf-8")
    assert prepare(peer, tmp_path) == folder / "bin" / "python"
    assert peer.convert == (*PEERS["llama.cpp"].convert, "Q4_0")
