"""The Compose file and what it hands to Prometheus and Grafana, checked without containers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest

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

COMPOSE = load("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVER = SERVICES["millstream"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


def test_images_are_of_a_release() -> None:
    assert SERVER["image"] == "millstream", "it is built"
    others = [service["image"] for name, service in SERVICES.items() if name != "millstream"]
    assert len(others) == 3
    assert all(re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", image) for image in others)


def test_nothing_is_open_beyond_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert f"127.0.0.1:{PORT}:{PORT}" in SERVER["ports"]


def test_services_can_do_no_more_than_they_need() -> None:
    for name, service in SERVICES.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name != "postgres":  # its image begins as root, to give the folder to its user
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
    assert SERVER["volumes"] == ["data:/data"]
    assert "VOLUME /data" in DOCKERFILE
    assert SERVER["tmpfs"] == ["/tmp"]


def test_every_variable_of_the_server_exists() -> None:
    assert SERVER["env_file"] == [{"path": ".env", "required": False}]
    given = {*variables_of("env.example"), *SERVER["environment"]}
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    of_compose = set(re.findall(r"\$\{([A-Z_]+)", text))
    assert [name for name in given - of_compose if not is_read(name)] == []
    assert of_compose <= given, "each is explained"
    assert not [name for name in of_compose if name.startswith(PREFIX)]


def test_build_arguments_are_those_of_the_dockerfile() -> None:
    assert set(SERVER["build"]["args"]) == set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.M))
    assert (DEPLOY / SERVER["build"]["context"]).resolve() == ROOT


def test_what_is_mounted_is_there() -> None:
    named = set(COMPOSE["volumes"])
    for service in SERVICES.values():
        for volume in service["volumes"]:
            source, target, *_ = volume.split(":")
            assert target.startswith("/")
            assert (DEPLOY / source).exists() if source.startswith("./") else source in named
            named.discard(source)
    assert named == set(), "nobody uses it"


def test_the_server_may_drain() -> None:
    variables = variables_of("env.example") | SERVER["environment"]
    grace = variables.get(f"{PREFIX}GRACEFUL_TERMINATION_TIMEOUT")
    assert seconds(SERVER["stop_grace_period"]) > drain_seconds(grace)


def test_the_database_is_the_one_that_the_example_names() -> None:
    postgres = SERVICES["postgres"]["environment"]
    variables = variables_of("env.example")
    user, database = postgres["POSTGRES_USER"], postgres["POSTGRES_DB"]
    wanted = f"postgresql://{user}:PASSWORD@postgres/{database}"
    assert variables[f"{PREFIX}STORE"] == wanted
    assert "postgres" in re.findall(r"/build\[(.*)\]", DOCKERFILE)[0].split(",")
    # Without the profile there is none to wait for.
    assert SERVER["depends_on"]["postgres"] == {"condition": "service_healthy", "required": False}
    assert SERVICES["postgres"]["profiles"] == ["postgres"]


def test_the_gpu_is_given_to_the_server() -> None:
    services = load("compose.cuda.yaml")["services"]
    assert set(services) == {"millstream"}
    (device,) = services["millstream"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "NVIDIA_VISIBLE_DEVICES=all" in DOCKERFILE


def test_prometheus_asks_the_server_for_the_job_of_the_alerts() -> None:
    (job,) = load("prometheus/prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"millstream:{PORT}"]}]
    assert SERVER["environment"][f"{PREFIX}OPEN_METRICS"] == "true", "it has no key"
    alerts = (DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    assert set(re.findall(r'job="(\w+)"', alerts)) == {job["job_name"]}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_prometheus_takes_its_configuration() -> None:
    file = DEPLOY / "prometheus" / "prometheus.yml"
    command = ["promtool", "check", "config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    (source,) = load("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    host, port = source["url"].removeprefix("http://").split(":")
    assert SERVICES[host]["ports"] == [f"127.0.0.1:{port}:{port}"]
    (provider,) = load("grafana/provisioning/dashboards/millstream.yml")["providers"]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    place = mounts["./grafana/millstream.json"]
    assert place.rpartition("/")[0] == provider["options"]["path"]
    assert SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == place
    # A dashboard that is imported by hand asks for its source; one in a file has to find it.
    dashboard = json.loads((DEPLOY / "grafana" / "millstream.json").read_text(encoding="utf-8"))
    assert "__inputs" not in dashboard
    asked = [each for each in dashboard["templating"]["list"] if each["type"] == "datasource"]
    assert [each["query"] for each in asked] == [source["type"]]
