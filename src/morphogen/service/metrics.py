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

from morphogen.batcher.statistics import BatcherStatistics
from morphogen.engine.cuda.phases import PhaseCounter
from morphogen.errors import MorphogenError
from morphogen.service.generations import Generations
from morphogen.service.gpus import families as gpu_families
from morphogen.service.opening import Opener
from morphogen.service.shards import families

CONTENT_TYPE = CONTENT_TYPE_LATEST
METRICS_PATH = "/metrics"
PHASES = ("decode", "answer", "encode")
OUTCOMES = ("answered", "failed", "cancelled", "expired", "refused")
RELOADS = ("loaded", "unchanged", "refused")
# Seconds: a pass over pages in the caches takes 50 us, over one of 100 GB several seconds.
_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


_COUNTERS = {
    "waiting_seconds": "Seconds that queries waited for their chunks.",
    "running_seconds": "Seconds that chunks ran.",
    "pages_changed": "Pages that differed from one epoch to the next.",
}
_GAUGES = {
    "queue_depth": "Queries that wait.",
    "running_queries": "Queries in the chunk that runs.",
    "epoch": "Version of the table.",
    "epochs": "Versions of the table that are answered for.",
    "pages": "Pages in the table.",
}


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

    Attributes
    ----------
    tables : mapping of str to Generations
        By the table's name; asked for their statistics at each scrape. The application sets them.
        Where there are several, their metrics have the name as a label.
    phases : dict of str to Durations
        By the name of a request's phase.
    requests : collections.Counter
        Requests, by path and status.
    cut_off : mapping of str to int
        Connections that were cut off, by the reason.
    reloads : collections.Counter
        Epochs that were looked for while the service ran, by what came of it: "loaded",
        "unchanged", "refused".
    pages_changed : collections.Counter
        Pages that differed from one epoch to the next, by the table's name.
    openers : mapping of str to Opener
        What opens the engines of tables, by the table's name: it counts processes that it replaced.
    chunks : PhaseCounter
        Counts chunks on GPUs, where engines were opened with it.
    """

    def __init__(self) -> None:
        self.tables: Mapping[str, Generations] = {}
        self.phases: dict[str, Durations] = {phase: Durations() for phase in PHASES}
        self.requests: Counter[tuple[str, str]] = Counter()
        self.cut_off: Mapping[str, int] = {}
        self.reloads: Counter[str] = Counter(dict.fromkeys(RELOADS, 0))
        self.pages_changed: Counter[str] = Counter()
        self.openers: dict[str, Opener] = {}
        self.chunks: PhaseCounter = PhaseCounter()
        self._registry = CollectorRegistry()
        self._registry.register(_RequestCollector(self))
        self._registry.register(_TableCollector(self))

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
        reloads = CounterMetricFamily(
            "morphogen_reloads",
            "Epochs that were looked for while the server ran, by what came of it.",
            labels=("outcome",),
        )
        for outcome, count in sorted(self._metrics.reloads.items()):
            reloads.add_metric((outcome,), count)
        yield reloads
        yield from gpu_families(self._metrics.chunks.sums())


class _TableCollector(Collector):
    """What the batchers of each table counted, at one instant, and the epochs that it has."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        tables = self._metrics.tables
        several = len(tables) > 1
        label = ("table",) if several else ()
        queries = CounterMetricFamily(
            "morphogen_queries", "Queries, by what became of them.", labels=(*label, "outcome")
        )
        sizes = HistogramMetricFamily(
            "morphogen_chunk_size", "Queries that shared a pass over the pages.", labels=label
        )
        counters = {
            name: CounterMetricFamily(f"morphogen_{name}", text, labels=label)
            for name, text in _COUNTERS.items()
        }
        gauges = {
            name: GaugeMetricFamily(f"morphogen_{name}", text, labels=label)
            for name, text in _GAUGES.items()
        }
        server = InfoMetricFamily("morphogen_server", "What answers.", labels=label)
        table = InfoMetricFamily("morphogen_table", "The authenticated pages.", labels=label)
        for name, generations in tables.items():
            of = (name,) if several else ()
            now, info = generations.statistics(), generations.current.info
            for outcome in OUTCOMES:
                queries.add_metric((*of, outcome), getattr(now, outcome))
            _add_sizes(sizes, of, now, generations.width)
            counters["waiting_seconds"].add_metric(of, now.waiting_seconds)
            counters["running_seconds"].add_metric(of, now.running_seconds)
            counters["pages_changed"].add_metric(of, self._metrics.pages_changed[name])
            gauges["queue_depth"].add_metric(of, now.queued)
            gauges["running_queries"].add_metric(of, now.running)
            gauges["epoch"].add_metric(of, info.epoch_id)
            gauges["epochs"].add_metric(of, len(generations.held))
            gauges["pages"].add_metric(of, info.num_pages)
            server.add_metric(of, {"device": info.device, "party": str(info.party)})
            if info.root is not None:
                levels = str(info.proof_levels)
                table.add_metric(of, {"root": info.root, "proof_levels": levels})
        yield from (queries, sizes, *counters.values(), *gauges.values(), server)
        if table.samples:
            yield table
        shards = {name: did for name in tables if (did := tables[name].shards()) is not None}
        replaced = {name: opener.replaced for name, opener in self._metrics.openers.items()}
        yield from families(shards, replaced, labelled=several)


def _add_sizes(
    family: HistogramMetricFamily, labels: tuple[str, ...], now: BatcherStatistics, widest: int
) -> None:
    upto, buckets = 0, []
    for size in range(1, widest + 1):
        upto += now.chunk_sizes.get(size, 0)
        buckets.append((str(float(size)), upto))
    total = sum(size * count for size, count in now.chunk_sizes.items())
    family.add_metric(labels, buckets=[*buckets, ("+Inf", upto)], sum_value=total)
