"""The metrics of a service in Prometheus' text format. Each service has its own registry."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from morphogen.batcher import MicroBatcher
from morphogen.wire import TableInfo

CONTENT_TYPE = CONTENT_TYPE_LATEST
PHASES = ("decode", "answer", "encode")
# Seconds: a pass over pages in the caches takes 50 us, over one of 100 GB several seconds.
_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class Metrics:
    """Counters of one service.

    Parameters
    ----------
    batcher : MicroBatcher
        Asked for its statistics at each scrape.
    info : TableInfo
        The description of its pages.
    """

    def __init__(self, batcher: MicroBatcher, info: TableInfo) -> None:
        self._registry = CollectorRegistry()
        self.requests: Counter = Counter(
            "morphogen_requests",
            "Requests answered, by path and status.",
            ("path", "status"),
            registry=self._registry,
        )
        self._phases = Histogram(
            "morphogen_phase_seconds",
            "Durations of a request's phases: decode, answer (waiting and running), encode.",
            ("phase",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.phases: dict[str, Histogram] = {phase: self._phases.labels(phase) for phase in PHASES}
        self._registry.register(_BatcherCollector(batcher, info))

    def text(self) -> bytes:
        """All metrics now.

        Returns
        -------
        bytes
            Prometheus' text format, of the content type ``CONTENT_TYPE``.
        """
        return generate_latest(self._registry)


class _BatcherCollector(Collector):
    """The batcher's statistics, taken at one instant."""

    def __init__(self, batcher: MicroBatcher, info: TableInfo) -> None:
        self._batcher = batcher
        self._info = info

    def collect(self) -> Iterator[Metric]:
        now = self._batcher.statistics()
        queries = CounterMetricFamily(
            "morphogen_queries", "Queries, by what became of them.", labels=("outcome",)
        )
        for outcome in ("answered", "failed", "cancelled", "expired", "refused"):
            queries.add_metric((outcome,), getattr(now, outcome))
        yield queries
        upto, buckets = 0, []
        for size in range(1, self._batcher.max_micro_batch + 1):
            upto += now.chunk_sizes.get(size, 0)
            buckets.append((str(float(size)), upto))
        yield HistogramMetricFamily(
            "morphogen_chunk_size",
            "Queries that shared a pass over the pages.",
            buckets=[*buckets, ("+Inf", upto)],
            sum_value=sum(size * count for size, count in now.chunk_sizes.items()),
        )
        for name, text, value in (
            ("waiting", "Seconds that queries waited for their chunks.", now.waiting_seconds),
            ("running", "Seconds that chunks ran.", now.running_seconds),
        ):
            yield CounterMetricFamily(f"morphogen_{name}_seconds", text, value=value)
        for name, text, value in (
            ("queue_depth", "Queries that wait.", now.queued),
            ("running_queries", "Queries in the chunk that runs.", now.running),
            ("epoch", "Version of the table.", self._info.epoch_id),
            ("pages", "Pages in the table.", self._info.num_pages),
        ):
            yield GaugeMetricFamily(f"morphogen_{name}", text, value=value)
        yield InfoMetricFamily(
            "morphogen_server",
            "What answers.",
            value={"device": self._info.device, "party": str(self._info.party)},
        )
