"""What a server's /metrics says, read by the parser of prometheus_client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from .harness import RunningServer


class Samples:
    """One answer of /metrics."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        names = Counter(family.name for family in families)
        assert max(names.values()) == 1, "a family that stands there twice"
        self._samples = [sample for family in families for sample in family.samples]
        self.types = {family.name: family.type for family in families}

    def total(self, name: str) -> float:
        """The sum over all labels. Fails if there is no sample of this name."""
        found = [sample.value for sample in self._samples if sample.name == name]
        assert found, f"nothing is called {name}"
        return sum(found)

    def by(self, name: str, *labels: str) -> dict[Any, float]:
        """The values that are not 0 by a label, or by several."""
        found: Counter[Any] = Counter()
        for sample in self._samples:
            if sample.name == name and sample.value:
                key = tuple(sample.labels[label] for label in labels)
                found[key if len(labels) > 1 else key[0]] += sample.value
        return dict(found)

    def falling(self, later: Samples) -> Iterator[str]:
        """Names of samples that are smaller, or gone, in a later answer."""
        values = {(s.name, frozenset(s.labels.items())): s.value for s in later._samples}
        for sample in self._samples:
            key = sample.name, frozenset(sample.labels.items())
            if values.get(key, -1) < sample.value:
                yield sample.name


def scraped(server: RunningServer, **headers: str) -> Samples:
    """What /metrics says now."""
    response = httpx.get(f"{server.url}/metrics", headers=headers, timeout=30)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Samples(response.text)
