"""The Dockerfile and deploy/, read by the programs that other people check such files with.

What they name of the server is tested in tests/deploy.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROGRAMS = Path(sys.executable).parent


def run(program: str, *arguments: str) -> str:
    """What a program installed beside this Python prints; fails with what it complains about."""
    command = [str(PROGRAMS / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert run("hadolint", str(ROOT / "Dockerfile")) == ""


def test_compose_reads_its_file() -> None:
    compose = PyCompose.from_yaml((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    compose.validate()
    assert set(compose.service_names()) == {"grafana", "millstream", "postgres", "prometheus"}
    # The other file is only what is added to a service of the first.
    added = yaml.safe_load((DEPLOY / "compose.cuda.yaml").read_text(encoding="utf-8"))
    added["services"]["millstream"]["image"] = "millstream"
    PyCompose.from_yaml(yaml.safe_dump(added)).validate()


@pytest.mark.parametrize("variant", ["base", "cuda"])
def test_kubernetes_takes_the_manifests(variant: str, tmp_path: Path) -> None:
    """kustomize puts them together, and each is of its kind's schema, of two releases."""
    folder = tmp_path / "kubernetes"
    shutil.copytree(DEPLOY / "kubernetes", folder)
    example = folder / "base" / "secret.env.example"
    example.rename(folder / "base" / "secret.env")
    manifests = list(yaml.safe_load_all(run("kubectl", "kustomize", str(folder / variant))))
    for manifest in manifests:
        for release in ("1.31", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(manifest, release, strict=True)
    found = {manifest["kind"]: manifest for manifest in manifests}
    assert set(found) == {
        "Deployment",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Secret",
        "Service",
    }
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["envFrom"][0]["secretRef"]["name"] == found["Secret"]["metadata"]["name"]
    assert container["image"].count(":") == 1, "an image of a release"
    limits = container["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) == (variant == "cuda")
    assert limits["memory"] == container["resources"]["requests"]["memory"]
