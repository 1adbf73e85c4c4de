"""The Dockerfile and deploy/, read by the programs that other people check such files with.

What they name of the server is tested in tests/deploy.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard, units

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


def test_grafana_knows_all_of_the_dashboard() -> None:
    """Its types, which Grafana generates from its schemas, lose nothing of what they read, and each
    unit and choice is one of theirs. What they lack is there in what Grafana itself exports."""
    plugins.register_default_plugins()
    written = json.loads((DEPLOY / "grafana" / "millstream.json").read_text(encoding="utf-8"))
    read = dashboard.Dashboard.from_json(written)
    kept = json.loads(JSONEncoder().encode(read))
    lost = set(leaves(written)) - set(leaves(kept))
    assert all(path[0] == "templating" and path[-2] == "definition" for path in lost), lost
    shown = [panel for panel in read.panels or [] if isinstance(panel, dashboard.Panel)]
    figures = [panel for panel in shown if panel.type_val != "row"]
    assert figures
    known = {value for value in vars(units).values() if isinstance(value, str)}
    for panel in figures:
        assert type(panel.options).__module__.endswith(f".{panel.type_val}"), "no such panel"
        assert panel.field_config is not None
        assert panel.field_config.defaults.unit in known
        assert list(wrong_choices(panel)) == []


def leaves(value: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """The paths to all that is no list or object, each ended by what is there."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in pairs:
            yield from leaves(part, *path, str(key))
    else:
        yield (*path, repr(value))


def wrong_choices(value: Any) -> Iterator[str]:
    """What is not among the choices that its type gives."""
    if isinstance(value, list):
        for part in value:
            yield from wrong_choices(part)
    elif type(value).__module__.startswith("grafana_foundation_sdk.models"):
        types = get_type_hints(type(value))
        for name, part in vars(value).items():
            kinds = [types.get(name), *get_args(types.get(name))]
            choices = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum)]
            allowed = [choice.value for kind in choices for choice in kind]
            if allowed and part is not None and part not in allowed:
                yield f"{type(value).__name__}.{name}: {part}"
            yield from wrong_choices(part)


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
