"""A real Prometheus scrapes a real server; our dashboard, and those of others, are not empty.

Skipped where Prometheus is not installed (Debian: `apt install prometheus`).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_port

from .harness import RunningServer, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "millstream.json").read_text(encoding="utf-8"))
PANELS = [(p["title"], t["expr"]) for p in DASHBOARD["panels"] for t in p.get("targets", ())]
HISTOGRAMS_OF_OTHERS = [
    *(f"vllm:{name}_seconds" for name in ("e2e_request_latency", "time_to_first_token")),
    *(f"vllm:{name}_seconds" for name in ("inter_token_latency", "request_queue_time")),
    *(f"vllm:{name}_seconds" for name in ("request_prefill_time", "request_decode_time")),
    *("vllm:request_prompt_tokens", "vllm:request_generation_tokens", "tgi_request_duration"),
    *("tgi_request_queue_duration", "tgi_request_mean_time_per_token_duration"),
    *("tgi_request_generated_tokens", "tgi_request_input_length"),
]
QUERIES_OF_OTHERS = [
    'vllm:num_requests_running{model_name="millstream-demo"}',
    'vllm:num_requests_waiting{model_name="millstream-demo"}',
    'vllm:kv_cache_usage_perc{model_name="millstream-demo"}',
    'rate(vllm:prompt_tokens_total{model_name="millstream-demo"}[10m])',
    'rate(vllm:generation_tokens_total{model_name="millstream-demo"}[10m])',
    "sum by (finished_reason) (increase(vllm:request_success_total[10m]))",
    "label_replace(vllm:cache_config_info, 'size', '$1', 'block_size', '(.+)')",
    *("count(tgi_request_count)", "sum(increase(tgi_request_success[10m]))"),
    *("sum(increase(tgi_request_failure[10m])) by (err)", "sum(tgi_queue_size)"),
    "avg(tgi_batch_current_size)",
    *(
        f"histogram_quantile(0.99, sum by(le) (rate({n}_bucket[10m])))"
        for n in HISTOGRAMS_OF_OTHERS
    ),
]
"""As the dashboards of vLLM (examples/observability) and TGI (assets/tgi_grafana.json) ask."""

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not installed"
)


class Prometheus:
    """One that has scraped the server before and after some answers."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The value of each series. Fails for what is no query."""
        said = self._http.get("/api/v1/query", params={"query": expression}).json()
        assert said["status"] == "success", said
        found: list[dict[str, Any]] = said["data"]["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        groups = self._http.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def is_up(self) -> bool:
        try:
            is_ready = self._http.get("/-/ready").status_code == 200
            return is_ready and self.query("up") != []
        except httpx.TransportError:
            return False

    def close(self) -> None:
        self._http.close()


@pytest.fixture(scope="module")
def prometheus(
    demo_server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    job = {"job_name": "millstream", "static_configs": [{"targets": [demo_server.url[7:]]}]}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(DEPLOY / "prometheus" / "alerts.yml")],
        "scrape_configs": [job],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml"]
    command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    prometheus = Prometheus(f"http://{address}")
    try:
        wait_until(prometheus.is_up, "a first scrape")
        _talk(demo_server, prometheus)
        yield prometheus
    finally:
        prometheus.close()
        process.terminate()
        process.wait()


def _talk(server: RunningServer, prometheus: Prometheus) -> None:
    """Lets something be answered and something refused, until it shows."""

    def shows() -> bool:
        assert server.chat(stop="7").status_code == 200
        assert server.chat(n=0).status_code == 400
        return all(
            prometheus.query(f"rate({name}[10m]) > 0")
            for name in (
                "millstream_generated_tokens_total",
                "millstream_prefix_cache_queries_total",
                'millstream_requests_refused_total{code="invalid_value"}',
                "millstream_inter_token_latency_seconds_count",
            )
        )

    wait_until(shows, "rates above nothing")


def filled(expression: str) -> str:
    """A query of a dashboard, with its variables as Grafana fills them in.

    The interval is longer than these tests take: what was answered before the first is in each.
    """
    for name, value in (("job", ".*"), ("instance", ".*"), ("__rate_interval", "10m")):
        expression = re.sub(rf"\${name}\b", value, expression)
    return expression


@pytest.mark.parametrize(
    ("title", "expression"), PANELS, ids=[f"{title}-{n}" for n, (title, _) in enumerate(PANELS)]
)
def test_every_panel_has_something(prometheus: Prometheus, title: str, expression: str) -> None:
    found = prometheus.query(filled(expression))
    assert found, f"{title} is empty: {expression}"
    if title != "Grammars compiled":
        assert all(each["value"][1] not in ("NaN", "+Inf") for each in found), found


@pytest.mark.parametrize("expression", QUERIES_OF_OTHERS)
def test_dashboards_of_others_have_something(prometheus: Prometheus, expression: str) -> None:
    found = prometheus.query(expression)
    assert found
    assert all(each["value"][1] != "NaN" for each in found), found


def test_the_variables_of_the_dashboard_find_the_server(
    prometheus: Prometheus, demo_server: RunningServer
) -> None:
    (found,) = prometheus.query("millstream_info")
    assert found["metric"]["job"] == "millstream"
    assert f"http://{found['metric']['instance']}" == demo_server.url
    for variable in DASHBOARD["templating"]["list"]:
        assert variable["name"] == "datasource" or "millstream_info" in variable["definition"]


def test_no_alert_fires_for_a_server_that_is_well(prometheus: Prometheus) -> None:
    rules = prometheus.rules()
    assert len(rules) == 7
    assert all(rule["health"] != "err" and not rule["alerts"] for rule in rules), rules


@pytest.mark.parametrize(
    "arguments", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]]
)
def test_alerts_fire_when_they_are_to(arguments: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
