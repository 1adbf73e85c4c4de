"""Families of samples, made of plain numbers when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from millstream.metrics.histogram import Histogram

Labels = Mapping[str, str]
NO_LABELS: Labels = {}


def same_as(name: str) -> str:
    """What is said of a name that others have for one of ours."""
    return f"`millstream_{name}`"


def counter(name: str, text: str, value: float, labels: Labels = NO_LABELS) -> Metric:
    """One that has no labels but those given. name: without `_total`."""
    return counters(name, text, [(labels, value)])


def counters(name: str, text: str, values: Iterable[tuple[Labels, float]]) -> Metric:
    """One value for each set of labels. name: without `_total`."""
    family = CounterMetricFamily(name, text)
    for labels, value in values:
        family.add_sample(f"{name}_total", dict(labels), value)
    return family


def gauge(name: str, text: str, value: float, labels: Labels = NO_LABELS) -> Metric:
    """What goes up and down."""
    return gauges(name, text, [(labels, value)])


def gauges(name: str, text: str, values: Iterable[tuple[Labels, float]]) -> Metric:
    """One value for each set of labels."""
    family = GaugeMetricFamily(name, text)
    for labels, value in values:
        family.add_sample(name, dict(labels), value)
    return family


def histogram(name: str, text: str, values: Histogram, labels: Labels = NO_LABELS) -> Metric:
    """One that has no labels but those given."""
    return histograms(name, text, [(labels, values)])


def histograms(name: str, text: str, values: Iterable[tuple[Labels, Histogram]]) -> Metric:
    """One histogram for each set of labels."""
    family = HistogramMetricFamily(name, text)
    for labels, each in values:
        num_all = 0
        for bound, num_all in each.cumulative():
            within = {**labels, "le": "+Inf" if bound == inf else str(bound)}
            family.add_sample(f"{name}_bucket", within, num_all)
        family.add_sample(f"{name}_count", dict(labels), num_all)
        family.add_sample(f"{name}_sum", dict(labels), each.total)
    return family
