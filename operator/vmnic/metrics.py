"""Metrics, each declared once as data.

They are served and documented from this data, so that the two cannot differ. Labels take few values: names of pools and
policies, never of nodes or VMs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from . import __version__

__all__ = [
    "API_WRITES",
    "BUILD_INFO",
    "CONTENT_TYPE",
    "ApiWrites",
    "Metric",
    "family",
    "make_counter",
    "make_histogram",
    "make_registry",
    "render_metrics",
]

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4

_BUCKETS_S = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
"""Range from a decision out of the caches (a millisecond) to a change on a slow NIC."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as Prometheus sees it."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    text: str
    labels: Mapping[str, str]
    """Meaning of each label, in the order of the values."""
    leader_only: bool = False
    """Whether only the leading replica serves it, so that a sum over replicas is correct."""


BUILD_INFO = Metric("vmnic_build_info", "gauge", "Always 1; which build runs.", {"version": "of vmnic"})
API_WRITES = Metric(
    "vmnic_api_writes_total",
    "counter",
    "Writes sent to the API server.",
    {"verb": "POST, PUT, PATCH, DELETE", "resource": "plural of the kind"},
)


def make_registry() -> CollectorRegistry:
    """Create a registry with metrics about the build and the process."""
    # Without this call each counter and each histogram has a second series, `_created`.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # has no annotations
    # Not the global registry: that one also has collectors of Python's garbage collector and of the platform.
    registry = CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    build = prometheus_client.Gauge(BUILD_INFO.name, BUILD_INFO.text, tuple(BUILD_INFO.labels), registry=registry)
    build.labels(__version__).set(1)
    return registry


def make_histogram(metric: Metric, registry: CollectorRegistry) -> prometheus_client.Histogram:
    """Create a histogram of seconds."""
    return prometheus_client.Histogram(metric.name, metric.text, tuple(metric.labels), registry=registry, buckets=_BUCKETS_S)


def make_counter(metric: Metric, registry: CollectorRegistry) -> prometheus_client.Counter:
    """Create a counter."""
    return prometheus_client.Counter(metric.name, metric.text, tuple(metric.labels), registry=registry)


def family(metric: Metric, samples: Iterable[tuple[Sequence[str], float]]) -> GaugeMetricFamily:
    """Return a gauge with its samples, which are label values and the value."""
    made = GaugeMetricFamily(metric.name, metric.text, labels=tuple(metric.labels))
    for labels, value in samples:
        made.add_metric(labels, value)
    return made


def render_metrics(registry: CollectorRegistry) -> bytes:
    """Return the text that a scrape reads."""
    return prometheus_client.generate_latest(registry)


class ApiWrites(Collector):
    """Collector of the writes that clients count.

    Args:
        counters: Counts by verb and plural, as in `ApiClient.writes`.
    """

    def __init__(self, *counters: Mapping[str, int]) -> None:
        self._counters = counters

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the sum over the clients."""
        sums: Counter[str] = Counter()
        for counter in self._counters:
            sums.update(dict(counter))  # another thread may add to it
        made = CounterMetricFamily(API_WRITES.name, API_WRITES.text, labels=tuple(API_WRITES.labels))
        for name, count in sorted(sums.items()):
            made.add_metric(name.split(" "), count)
        yield made
