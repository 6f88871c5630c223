"""The metrics of a service in Prometheus' text format. Each service has its own registry.

The numbers are kept here, not in prometheus_client's counters: where the environment has a folder
for many processes, those would write files there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send
from prometheus_client import CollectorRegistry
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
from morphogen.errors import MorphogenError
from morphogen.wire import TableInfo

CONTENT_TYPE = CONTENT_TYPE_LATEST
METRICS_PATH = "/metrics"
PHASES = ("decode", "answer", "encode")
# Seconds: a pass over pages in the caches takes 50 us, over one of 100 GB several seconds.
_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class Durations:
    """A histogram of seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self._counts[bisect_left(_BUCKETS, seconds)] += 1
        self._sum += seconds

    def add_to(self, family: HistogramMetricFamily, label: str) -> None:
        """Add the histogram to a family of them."""
        upto, buckets = 0, []
        for bound, count in zip((*map(float, _BUCKETS), "+Inf"), self._counts, strict=True):
            upto += count
            buckets.append((str(bound), upto))
        family.add_metric((label,), buckets=buckets, sum_value=self._sum)


class Metrics:
    """The metrics of one service.

    They tell of every client's reads: show them to the operator only. `create_app` counts in them
    and does not serve them.

    Parameters
    ----------
    batcher : MicroBatcher
        Asked for its statistics at each scrape.
    info : TableInfo
        The description of its pages.

    Attributes
    ----------
    phases : dict of str to Durations
        By the name of a request's phase.
    requests : collections.Counter
        Requests, by path and status.
    cut_off : mapping of str to int
        Connections that were cut off, by the reason.
    """

    def __init__(self, batcher: MicroBatcher, info: TableInfo) -> None:
        self.phases: dict[str, Durations] = {phase: Durations() for phase in PHASES}
        self.requests: Counter[tuple[str, str]] = Counter()
        self.cut_off: Mapping[str, int] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_RequestCollector(self))
        self._registry.register(_BatcherCollector(batcher, info))

    def text(self) -> bytes:
        """All metrics now.

        Returns
        -------
        bytes
            Prometheus' text format, of the content type ``CONTENT_TYPE``.

        Raises
        ------
        BatcherClosedError
            If the batcher belongs to the parent of this process.
        """
        return generate_latest(self._registry)


def metrics_app(metrics: Metrics) -> ASGIApp:
    """Make the application that serves metrics, for a port that only the operator reaches.

    Parameters
    ----------
    metrics : Metrics
        Those of a service.

    Returns
    -------
    ASGI application
        It answers GET and HEAD of ``/metrics``.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # A server of applications takes the error to mean: no lifespan, no WebSocket.
        assert scope["type"] == ScopeType.HTTP
        kind, body = "text/plain; charset=utf-8", b""
        if scope["path"] != METRICS_PATH:
            status = 404
        elif scope["method"] not in ("GET", "HEAD"):
            status = 405
        else:
            try:
                status, kind, body = 200, CONTENT_TYPE, metrics.text()
            except MorphogenError as error:
                status, body = 503, str(error).encode()
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        content = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": content, "more_body": False})

    return app


class _RequestCollector(Collector):
    """What the service counts itself."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "morphogen_requests",
            "Requests answered, by path and status.",
            labels=("path", "status"),
        )
        for labels, count in sorted(self._metrics.requests.items()):
            requests.add_metric(labels, count)
        yield requests
        cut_off = CounterMetricFamily(
            "morphogen_connections_cut_off",
            "Connections that the server ended, by the reason.",
            labels=("reason",),
        )
        for reason, count in sorted(self._metrics.cut_off.items()):
            cut_off.add_metric((reason,), count)
        yield cut_off
        phases = HistogramMetricFamily(
            "morphogen_phase_seconds",
            "Durations of a request's phases: decode, answer (waiting and running), encode.",
            labels=("phase",),
        )
        for phase, durations in self._metrics.phases.items():
            durations.add_to(phases, phase)
        yield phases


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
        for size in range(1, self._batcher.width_for(self._info.keys_per_query) + 1):
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
        if self._info.root is not None:
            yield InfoMetricFamily(
                "morphogen_table",
                "The authenticated pages.",
                value={"root": self._info.root, "proof_levels": str(self._info.proof_levels)},
            )
