"""Where a model comes from: a folder, or the Hub through the real huggingface_hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from millstream.errors import StartupError
from millstream.model.loading.source import resolve
from millstream.settings import Settings
from tests.model.hub import FakeHub

PROGRAM = """
import sys
from millstream.errors import StartupError
from millstream.model.loading.source import resolve
from millstream.settings import Settings
try:
    print(resolve(Settings()))
except StartupError as error:
    sys.exit(error.message)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    names = ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"]
    for name in [*names, "pytorch_model.bin", "modeling_evil.py", "README.md"]:
        (folder / name).write_text(name)
    return folder


def run(hub: FakeHub, home: Path, **options: str) -> subprocess.CompletedProcess[str]:
    """Resolves in a process of its own, since huggingface_hub reads its endpoint at import."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home)}
    environment |= {f"MILLSTREAM_{name}": value for name, value in options.items()}
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        environment.pop(name, None)
    environment |= {k: v for k, v in options.items() if k.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_download_takes_safetensors_and_no_code(repository: Path, tmp_path: Path) -> None:
    with FakeHub({"org/tiny": repository}).serve() as hub:
        done = run(hub, tmp_path / "home", MODEL_ID="org/tiny", HF_TOKEN="hf_secret")
        assert done.returncode == 0, done.stderr
        folder = Path(done.stdout.strip())
        assert (folder / "model.safetensors").read_text() == "model.safetensors"
        assert sorted(hub.requested) == [
            "chat_template.jinja",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
        ]
        assert "Bearer hf_secret" in hub.tokens
        assert "Fetching" in done.stderr, "no progress bar"


def test_code_comes_only_when_trusted(repository: Path, tmp_path: Path) -> None:
    with FakeHub({"org/tiny": repository}).serve() as hub:
        run(hub, tmp_path / "home", MODEL_ID="org/tiny", TRUST_REMOTE_CODE="1")
        assert "modeling_evil.py" in hub.requested


@pytest.mark.parametrize("is_sharded", [False, True])
def test_only_the_weights_that_are_loaded_are_downloaded(
    repository: Path, tmp_path: Path, is_sharded: bool
) -> None:
    wanted = ["model.safetensors"]
    if is_sharded:
        wanted = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        (repository / "model.safetensors").unlink()
        index = {"weight_map": {"a": wanted[0], "b": wanted[1], "c": wanted[0]}}
        (repository / "model.safetensors.index.json").write_text(json.dumps(index))
    others = ["consolidated.safetensors", "consolidated-00001-of-00002.safetensors"]
    others += ["model.fp16.safetensors", "adapter_model.safetensors", "model.gguf", "tf_model.h5"]
    others += ["original/consolidated.safetensors", "original/params.json", "onnx/model.onnx"]
    others += ["onnx/config.json", "openvino/vocab.txt"]
    templates = ["additional_chat_templates/tool_use.jinja"]
    for name in [*wanted, *others, *templates]:
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text(name)
    with FakeHub({"org/tiny": repository}).serve() as hub:
        done = run(hub, tmp_path / "home", MODEL_ID="org/tiny")
        assert done.returncode == 0, done.stderr
        weights = [name for name in hub.requested if name.endswith(".safetensors")]
        assert sorted(weights) == wanted
        assert not {*others, "pytorch_model.bin"} & {*hub.requested}
        assert {*templates} < {*hub.requested}
        asked = len(hub.requested)
        again = run(hub, tmp_path / "home", MODEL_ID="org/tiny")
        assert (again.stdout, len(hub.requested)) == (done.stdout, asked)
    offline = run(hub, tmp_path / "home", MODEL_ID="org/tiny", HF_HUB_OFFLINE="1")
    assert offline.stdout == done.stdout, offline.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"MODEL_ID": "org/missing"}, "neither a local folder nor a model on the Hub"),
        ({"MODEL_ID": "org/gated"}, "is gated"),
        ({"MODEL_ID": "org/tiny", "REVISION": "nope"}, "has no revision nope"),
        ({"MODEL_ID": "not a name"}, "neither a local folder nor a model on the Hub"),
    ],
)
def test_refusals_say_what_to_do(
    repository: Path, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    repositories = {"org/tiny": repository, "org/gated": repository}
    with FakeHub(repositories, gated=frozenset({"org/gated"})).serve() as hub:
        done = run(hub, tmp_path / "home", **options)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_a_download_that_breaks_off_is_told_in_one_line(repository: Path, tmp_path: Path) -> None:
    broken = frozenset({"model.safetensors"})
    with FakeHub({"org/tiny": repository}, broken=broken).serve() as hub:
        done = run(hub, tmp_path / "home", MODEL_ID="org/tiny")
    assert done.returncode == 1
    assert "--model-id: org/tiny could not be downloaded: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_local_folder_is_taken_as_it_is(repository: Path) -> None:
    assert resolve(Settings(model_id=str(repository))) == repository


def test_folder_without_safetensors_is_refused(repository: Path) -> None:
    (repository / "model.safetensors").unlink()
    with pytest.raises(StartupError, match=r"neither model\.safetensors nor"):
        resolve(Settings(model_id=str(repository)))


def test_missing_folder_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there is no folder"):
        resolve(Settings(model_id=str(tmp_path / "nothing")))


def test_demo_model_is_in_the_package() -> None:
    assert (resolve(Settings()) / "model.safetensors").is_file()
