"""The figures of a node in Prometheus' text form. The only importer of prometheus_client.

Each node has a registry of its own, so that two of them can live in one process. Nothing is kept here: every scrape
reads what the node counts (`node.telemetry.readings`) and writes that down, in whatever thread serves it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from node.telemetry.counts import Histogram
from node.telemetry.readings import METRICS, Reading


class Exposition:
    """Writes what `read` gives. It is called once for each scrape, in the thread that serves it."""

    def __init__(self, read: Callable[[], Sequence[Reading]]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(_Figures(read))

    def write(self, accept: str) -> tuple[bytes, str]:
        """The metrics and their content type; accept: what the scraper says it can read."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Figures(Collector):
    def __init__(self, read: Callable[[], Sequence[Reading]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Nothing: else the registry would read the node to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families in which there is anything."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily] = {}
        for name, labels, value in self._read():
            family = families.get(name)
            if family is None:
                family = families[name] = _family(name)
            if isinstance(family, HistogramMetricFamily):
                if isinstance(value, Histogram):
                    family.add_metric(labels, _buckets(value), value.total_s)
            elif not isinstance(value, Histogram):
                family.add_metric(labels, value)
        return iter(families.values())


def _family(name: str) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    metric = METRICS[name]
    match metric.kind:
        case "counter":
            return CounterMetricFamily(name, metric.meaning, labels=metric.labels)
        case "gauge":
            return GaugeMetricFamily(name, metric.meaning, labels=metric.labels)
        case _:
            return HistogramMetricFamily(name, metric.meaning, labels=metric.labels)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """How many were at most as long as each limit, as Prometheus counts."""
    limits = [*map(floatToGoString, histogram.bounds_s), "+Inf"]
    return list(zip(limits, itertools.accumulate(histogram.counts), strict=True))
