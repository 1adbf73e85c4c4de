"""A server that is started as deploy/kubernetes starts it answers what is asked of it there."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.deploy.served import load

from .harness import RunningServer

POD = load("kubernetes/base/deployment.yaml")["spec"]["template"]["spec"]
MONITOR = load("kubernetes/base/servicemonitor.yaml")


def test_probes_and_metrics_of_a_pod_need_no_key(endless_model: Path, tmp_path: Path) -> None:
    (container,) = POD["containers"]
    arguments = [each for each in container["args"] if not each.startswith("--model-id=")]
    flags = ["--model-id", str(endless_model), "--kv-cache-memory", "64MiB", *arguments]
    variables = {each["name"]: each["value"] for each in container["env"]}
    variables["MILLSTREAM_API_KEY"] = "sesame"
    # With --log-format json there is no announcement to wait for.
    flags.remove("--log-format=json")
    server = RunningServer(flags, tmp_path / "log", variables=variables, is_warm=True)
    try:
        probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness")]
        probes += [container["readinessProbe"]["httpGet"], *MONITOR["spec"]["endpoints"]]
        asked = [httpx.get(f"{server.url}{probe['path']}", timeout=30) for probe in probes]
        assert [answer.status_code for answer in asked] == [200] * 4
        assert "vllm:num_requests_waiting" in asked[-1].text
        assert server.chat().status_code == 401
        server.stop()
    finally:
        server.kill()
