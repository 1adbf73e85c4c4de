"""docs/scale.md: the metrics that gateways read are there, and its program is one."""

from __future__ import annotations

import re
from typing import Any

import yaml
from prometheus_client.core import Metric

from millstream.api.context import ServerContext
from millstream.api.metrics.endpoint import all_families
from millstream.metrics.counts import Counts
from tests.api.serving import context
from tests.deploy.served import PORT, ROOT, SETTINGS, load
from tests.text.conftest import byte_tokenizer

__all__ = ["byte_tokenizer", "context"]

PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
START, END = "<!-- gateway: checked by tests/deploy/test_scale_page.py -->", "<!-- end of gateway"


async def test_gateways_find_their_metrics(context: ServerContext) -> None:
    families: dict[str, Metric] = {
        family.name: family for family in all_families(context, Counts())
    }
    table = PAGE.split(START)[1].split(END)[0]
    rows = [line.split("|")[2:4] for line in table.splitlines() if "`vllm:" in line]
    assert len(rows) == 5
    for cells in rows:
        (name,), labels = (re.findall(r"`([a-z_:]+)`", cell) for cell in cells)
        family = families[name]
        assert family.type == "gauge"
        assert all(set(labels) <= set(sample.labels) for sample in family.samples)
        assert family.samples


def test_the_pool_has_the_pods_of_the_deployment() -> None:
    (pool,) = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.S))
    pods: Any = load("kubernetes/base/deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert pool["spec"]["selector"]["matchLabels"] == pods
    assert pool["spec"]["targetPorts"] == [{"number": PORT}]
    assert f"(`--block-size`, {SETTINGS['block_size'].default})" in PAGE


def test_the_program_for_ray_serve_compiles_and_waits_for_the_drain() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    compile(program, "scale.md", "exec")
    (seconds,) = re.findall(r"graceful_shutdown_timeout_s=(\d+)", program)
    assert int(seconds) > SETTINGS["graceful_termination_timeout"].default
    (most,) = re.findall(r"max_ongoing_requests=(\d+)", program)
    places = [SETTINGS[name].default for name in ("max_concurrent_requests", "max_queue_size")]
    assert int(most) == sum(places)
