"""The manifests in deploy/kubernetes/, beside the server that they start.

Whether Kubernetes takes them is tested by tests/compat/test_deploy.py.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from millstream import __version__
from millstream.command_line import build_parser, parse_settings
from tests.deploy.served import (
    DEPLOY,
    PORT,
    PREFIX,
    ROOT,
    drain_seconds,
    is_read,
    load,
    variables_of,
)

BASE = DEPLOY / "kubernetes" / "base"
DEPLOYMENT = load("kubernetes/base/deployment.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
LABELS = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def settings_of(arguments: list[str]) -> Any:
    options = vars(build_parser().parse_args(["serve", *arguments]))
    del options["command"]
    return parse_settings(options)


def test_every_file_is_used() -> None:
    named = load("kubernetes/base/kustomization.yaml")["resources"]
    assert set(named) <= {file.name for file in BASE.glob("*.yaml")}
    unnamed = {file.name for file in BASE.glob("*.yaml")} - {"kustomization.yaml", *named}
    assert unnamed == {"servicemonitor.yaml"}, "its kind is not there without an operator"
    text = (BASE / "kustomization.yaml").read_text(encoding="utf-8")
    assert "# - servicemonitor.yaml" in text


def test_the_server_takes_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}API_KEY", "sesame")
    settings = settings_of(CONTAINER["args"])
    assert settings.open_metrics, "the ServiceMonitor has no key"
    assert "endpoints" in load("kubernetes/base/servicemonitor.yaml")["spec"]
    assert str(settings.threads) == CONTAINER["resources"]["requests"]["cpu"]


def test_the_drain_fits_in_the_grace_period() -> None:
    grace = settings_of(CONTAINER["args"]).graceful_termination_timeout
    program, pause = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert POD["terminationGracePeriodSeconds"] >= int(pause) + drain_seconds(str(grace))


def test_every_variable_exists() -> None:
    given = [variable["name"] for variable in CONTAINER["env"]]
    secret = variables_of("kubernetes/base/secret.env.example")
    assert set(secret) >= {f"{PREFIX}API_KEY", f"{PREFIX}STORE"}
    assert [name for name in (*given, *secret) if not is_read(name)] == []
    assert not any(secret.values()), "secrets are filled in by whoever has them"
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "deploy/kubernetes/base/secret.env" in ignored


def test_secrets_are_in_no_argument() -> None:
    (generated,) = load("kubernetes/base/kustomization.yaml")["secretGenerator"]
    assert generated == {"name": "millstream", "envs": ["secret.env"]}
    assert CONTAINER["envFrom"] == [{"secretRef": {"name": generated["name"]}}]
    text = " ".join(CONTAINER["args"])
    assert not re.search(r"--(api-key|store\b|ssl-keyfile-password)", text)


def test_a_service_of_our_name_does_not_become_our_port() -> None:
    """Kubernetes gives pods MILLSTREAM_PORT=tcp://... for it, unless it is told not to."""
    assert load("kubernetes/base/service.yaml")["metadata"]["name"] == "millstream"
    assert POD["enableServiceLinks"] is False


def test_ports_lead_to_the_server() -> None:
    (port,) = CONTAINER["ports"]
    assert port["containerPort"] == PORT
    assert f"EXPOSE {PORT}" in DOCKERFILE
    assert "MILLSTREAM_HOST=0.0.0.0" in DOCKERFILE, "the image listens to others"
    (served,) = load("kubernetes/base/service.yaml")["spec"]["ports"]
    (watched,) = load("kubernetes/base/servicemonitor.yaml")["spec"]["endpoints"]
    probes = [CONTAINER[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    names = {served["targetPort"], watched["port"], *(probe["port"] for probe in probes)}
    assert names == {port["name"]} == {served["name"]}
    assert [probe["path"] for probe in probes] == ["/health/ready", "/health/live", "/health/ready"]


def test_all_select_the_same_pods() -> None:
    selectors = [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
        load("kubernetes/base/service.yaml")["spec"]["selector"],
        load("kubernetes/base/poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
        load("kubernetes/base/servicemonitor.yaml")["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector == LABELS for selector in selectors)
    # Of a Service the operator finds the labels; the job is called by one of them.
    assert load("kubernetes/base/service.yaml")["metadata"]["labels"] == LABELS
    label = load("kubernetes/base/servicemonitor.yaml")["spec"]["jobLabel"]
    (job,) = load("prometheus/prometheus.yml")["scrape_configs"]
    assert LABELS[label] == job["job_name"]


def test_nothing_runs_as_root_or_writes_beside_its_volumes() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    user, group = (POD["securityContext"][name] for name in ("runAsUser", "runAsGroup"))
    assert f"USER {user}:{group}\n" in DOCKERFILE
    assert POD["securityContext"]["fsGroup"] == group
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert {volume["name"] for volume in POD["volumes"]} == set(mounts)
    # Its home and /tmp are what it writes to; models go where the Hub's library is told.
    assert {"/data", "/tmp"} < set(mounts.values())
    assert "HOME=/data" in DOCKERFILE
    environment = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
    assert environment["HF_HOME"] == mounts["models"]
    claims = {
        v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in POD["volumes"]
    }
    assert claims["models"] == load("kubernetes/base/models.yaml")["metadata"]["name"]


def test_a_replica_is_replaced_only_where_there_is_room() -> None:
    assert DEPLOYMENT["spec"]["replicas"] > 1
    assert DEPLOYMENT["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert load("kubernetes/base/poddisruptionbudget.yaml")["spec"]["maxUnavailable"] == 1
    (image,) = load("kubernetes/base/kustomization.yaml")["images"]
    assert (image["name"], image["newTag"]) == (CONTAINER["image"], __version__)


def test_the_gpu_is_given_to_the_server() -> None:
    overlay = load("kubernetes/cuda/kustomization.yaml")
    assert overlay["resources"] == ["../base"]
    (patch,) = overlay["patches"]
    (container,) = load(f"kubernetes/cuda/{patch['path']}")["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["name"] == CONTAINER["name"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
