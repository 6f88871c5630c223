"""The options of a server, checked against one another."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import morphogen.wire as wire
from morphogen.batcher import MAX_QUEUED
from morphogen.checks import check_range, check_seconds, is_loopback
from morphogen.engine.strategy import LANE_COUNTS
from morphogen.epochs.manifest import KEY_BYTES
from morphogen.pages import check_epoch
from morphogen.planner import MAX_KEYS_PER_QUERY
from morphogen.service.app import MAX_WAIT_SECONDS
from morphogen.service.limits import Limits

LOG_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
KINDS = ("ray",)
LOCAL = "local"
MAX_SHARDS, MAX_REPLICAS = 4096, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Where the parts of a server's tables are.

    Attributes
    ----------
    kind : str
        What starts and keeps the processes: "ray".
    shards : int
        Parts of each table, 1 to 4096: contiguous ranges of its pages.
    replicas : int
        Processes that hold the same part, 1 to 64. With one, its loss stops answers until another
        is there.
    address : str
        "local" for a cluster of this server's own, on this machine, which ends with it; else the
        address of one that runs.
    timeout : float or None
        Seconds that a pass may take at all shards; None for the engine's own choice.
    hedge : float or None
        Seconds after which a pass also goes to another replica; None for never.

    Raises
    ------
    ValueError
        If the options do not fit one another.
    """

    kind: str = "ray"
    shards: int
    replicas: int = 1
    address: str = LOCAL
    timeout: float | None = None
    hedge: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"cluster must be one of {', '.join(KINDS)}, not {self.kind!r}")
        check_range("shards", self.shards, 1, MAX_SHARDS)
        check_range("replicas", self.replicas, 1, MAX_REPLICAS)
        if not self.address:
            raise ValueError(f"address must be {LOCAL!r}, or HOST:PORT of a cluster, not empty")
        if self.timeout is not None:
            check_seconds("shard_timeout", self.timeout, above_zero=True)
        if self.hedge is None:
            return
        check_seconds("hedge", self.hedge, above_zero=True)
        if self.replicas == 1:
            raise ValueError("hedge needs 2 replicas or more, not 1: there is no other to ask")
        if self.timeout is not None and self.hedge >= self.timeout:
            raise ValueError(
                f"hedge must be below the timeout of shards, {self.timeout} s, not {self.hedge} s"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The options of a server.

    Attributes
    ----------
    path : pathlib.Path or None
        A file of pages; or a keyword table or sealed pages, whose file says the page size itself; a
        link to a file, or a folder of epochs. None where there are tables.
    party : int
    tables : mapping of str to pathlib.Path
        The paths of tables by their names, instead of ``path``.
    host : str
    port : int
        0 for any that is free.
    page_size : int or None
        Of a file of pages, 4096 by default. A keyword table takes none.
    keys_per_query : int
    epoch : int or None
        Of the first epoch; None for what its manifest or its name tells, or 0.
    watch : float or None
        Seconds between two looks for a new epoch; None for none but at SIGHUP.
    owner : bytes or None
        Ed25519 public key: only what manifests by this owner are about is served.
    device : str
    threads : int or None
        Of a pass, on the CPU; with a cluster of each shard.
    lanes : int or None
        Passes under way at a time, on a GPU.
    graph : bool
        Whether passes are launched by replaying a CUDA graph, on a GPU.
    cluster : ClusterConfig or None
        Where the parts of the tables are; None for this process.
    max_micro_batch : int or None
    max_queued : int
    max_queued_per_client : int or None
        Of one address; None for a quarter of all.
    max_wait : float
        Seconds that a query may wait.
    tls_cert, tls_key : pathlib.Path or None
        PEM files; both or neither.
    tls_client_ca : pathlib.Path or None
        Authorities, PEM: only clients with a certificate of theirs are served.
    insecure : bool
        Whether to serve beyond loopback without TLS.
    log_level : str
        The least that is logged: "info", "warning" or "error".
    metrics_host : str
    metrics_port : int or None
        0 for any that is free; None for no metrics. Beyond loopback they have TLS, too.
    limits : Limits
        What clients may take.

    Raises
    ------
    ValueError
        If the options do not fit one another.
    """

    path: Path | None = None
    party: int
    tables: Mapping[str, Path] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 0
    page_size: int | None = None
    keys_per_query: int = 3
    epoch: int | None = None
    watch: float | None = None
    owner: bytes | None = None
    device: str = "auto"
    threads: int | None = None
    lanes: int | None = None
    graph: bool = False
    cluster: ClusterConfig | None = None
    max_micro_batch: int | None = None
    max_queued: int = MAX_QUEUED
    max_queued_per_client: int | None = None
    max_wait: float = MAX_WAIT_SECONDS
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    insecure: bool = False
    log_level: str = "info"
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    limits: Limits = Limits()  # noqa: RUF009 - it is immutable

    def __post_init__(self) -> None:
        check_range("port", self.port, 0, 65535)
        if self.max_queued < wire.MAX_QUERIES:
            raise ValueError(
                f"max_queued must be at least {wire.MAX_QUERIES}, the queries of one request, not "
                f"{self.max_queued}"
            )
        check_range("max_queued_per_client", self.share, wire.MAX_QUERIES, self.max_queued)
        check_seconds("max_wait", self.max_wait, above_zero=True)
        for name, host in (("host", self.host), ("metrics_host", self.metrics_host)):
            if not host:  # a socket takes it for every interface
                raise ValueError(f"{name} must be a name or an address, not {host!r}")
        if self.log_level not in LOG_LEVELS:
            raise ValueError(
                f"log_level must be one of {', '.join(LOG_LEVELS)}, not {self.log_level!r}"
            )
        self._check_tables()
        if self.lanes is not None and self.lanes not in LANE_COUNTS:
            raise ValueError(f"lanes must be 1, 2 or 4, not {self.lanes}")
        if self.cluster is not None and (self.lanes is not None or self.graph):
            raise ValueError("lanes and graph are for a GPU of this process, not for a cluster")
        check_range("keys_per_query", self.keys_per_query, 1, MAX_KEYS_PER_QUERY)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("a certificate and its key go together: one of them is missing")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("the certificates of clients need TLS: give the server a certificate")
        if self.metrics_port is not None:
            check_range("metrics_port", self.metrics_port, 0, 65535)
        if self.tls_cert is None and not self.insecure:
            for host, what in ((self.host, "traffic"), (self.metrics_host, "metrics")):
                if not is_loopback(host):
                    raise ValueError(
                        f"{host} is not loopback: whoever sees the {what} of both servers sees "
                        "every page that is read. Give a certificate, or say --insecure"
                    )

    def _check_tables(self) -> None:
        if (self.path is None) == (not self.tables):
            raise ValueError("give one table's path, or tables with a name and a path each")
        for name in self.tables:
            wire.table_path(name)
        if self.epoch is not None:
            check_epoch(self.epoch)
        if self.watch is not None:
            check_seconds("watch", self.watch, above_zero=True)
        if self.owner is not None and len(self.owner) != KEY_BYTES:
            raise ValueError(f"an owner's key has {KEY_BYTES} bytes, not {len(self.owner)}")

    @property
    def paths(self) -> Mapping[str, Path]:
        """The tables' paths by their names; that of the only one is empty."""
        return self.tables if self.path is None else {"": self.path}

    @property
    def share(self) -> int:
        """The most queries of one address that may wait."""
        if self.max_queued_per_client is None:
            return max(self.max_queued // 4, min(self.max_queued, wire.MAX_QUERIES))
        return self.max_queued_per_client
