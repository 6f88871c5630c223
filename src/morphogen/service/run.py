"""Run the service: socket, TLS, structured logs, an orderly end."""

from __future__ import annotations

import logging
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import morphogen.wire as wire
from morphogen.batcher import MAX_QUEUED, MicroBatcher
from morphogen.checks import check_range, check_seconds, is_loopback
from morphogen.engine import device_candidates, open_engine
from morphogen.pages import check_epoch
from morphogen.planner import MAX_KEYS_PER_QUERY
from morphogen.progress import Progress
from morphogen.service.app import MAX_WAIT_SECONDS, create_app
from morphogen.service.cap import UNREAD_BYTES
from morphogen.service.limits import Limits
from morphogen.service.listener import bind, listen
from morphogen.service.logs import log, set_up_logs
from morphogen.service.metrics import METRICS_PATH, Metrics, metrics_app
from morphogen.service.server import Server
from morphogen.service.table import PagesFile, describe_table
from morphogen.service.tls import server_context

LOG_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_METRICS_LIMITS = Limits(connections=16, per_address=16)
# The thread that answers chunks and the event loop hand the interpreter to each other. With
# Python's 5 ms a lone client would wait longer for that than for a small table's pages.
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The options of a server.

    Attributes
    ----------
    path : pathlib.Path
        A file of pages; or a keyword table or sealed pages, whose file says the page size itself.
    party : int
    host : str
    port : int
        0 for any that is free.
    page_size : int or None
        Of a file of pages, 4096 by default. A keyword table takes none.
    keys_per_query, epoch : int
    device : str
    threads : int or None
        Of a pass, on the CPU.
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

    path: Path
    party: int
    host: str = "127.0.0.1"
    port: int = 0
    page_size: int | None = None
    keys_per_query: int = 3
    epoch: int = 0
    device: str = "auto"
    threads: int | None = None
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
        if self.log_level not in LOG_LEVELS:
            raise ValueError(
                f"log_level must be one of {', '.join(LOG_LEVELS)}, not {self.log_level!r}"
            )
        check_epoch(self.epoch)
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

    @property
    def share(self) -> int:
        """The most queries of one address that may wait."""
        if self.max_queued_per_client is None:
            return max(self.max_queued // 4, min(self.max_queued, wire.MAX_QUERIES))
        return self.max_queued_per_client


def serve(config: ServerConfig, progress: Progress | None = None) -> None:
    """Serve until SIGTERM, SIGHUP or SIGINT, then answer what was accepted.

    Parameters
    ----------
    config : ServerConfig
        The options.
    progress : callable, optional
        Called while the pages are read for their digest or root, with the bytes done and those in
        all.

    Raises
    ------
    OSError
        If a file cannot be read, or the address not be bound.
    TableFileError, ValueError
        If the file is a spoiled table, of which a page, a sibling, the cap or the root is wrong,
        or an option does not fit it.
    DeviceError
        If the device cannot be used.
    """
    context = None
    if config.tls_cert is not None and config.tls_key is not None:
        context = server_context(config.tls_cert, config.tls_key, config.tls_client_ca)
    # All that can be refused is refused before the pages are read, which may last.
    device_candidates(config.device)
    limits, open_files = config.limits.within_open_files()
    with ExitStack() as opened:
        ports = [opened.enter_context(bind(config.host, config.port))]
        if config.metrics_port is not None:
            ports.append(opened.enter_context(bind(config.metrics_host, config.metrics_port)))
        file = PagesFile(
            config.path,
            page_size=config.page_size,
            keys_per_query=config.keys_per_query,
            epoch=config.epoch,
        )
        engine = opened.enter_context(
            open_engine(file.pages, config.device, threads=config.threads)
        )
        batcher = opened.enter_context(
            MicroBatcher(
                engine,
                max_micro_batch=config.max_micro_batch,
                max_queued=config.max_queued,
                max_queued_per_client=config.share,
            )
        )
        digest, tree = file.read(progress)
        info = describe_table(
            engine,
            config.party,
            keys_per_query=config.keys_per_query,
            digest=digest,
            layout=None if file.layout is None else file.layout.as_dict(),
            tree=tree,
        )
        cap = None if tree is None else tree.cap.data
        limits = limits.with_answers_of(_largest_answer(info, 0 if cap is None else cap.nbytes))
        metrics = Metrics()
        app = create_app(
            batcher,
            info,
            cap=cap,
            max_wait=config.max_wait,
            metrics=metrics,
            trusted_proxies=limits.trusted_proxies,
        )
        server = Server(app, limits)
        for port in ports:
            listen(port)
        metrics.cut_off = server.add(ports[0], limits, context).cut_off
        urls = {"url": _url(ports[0], context)}
        for port in ports[1:]:
            # Whoever sees this traffic sees the metrics.
            shown = None if is_loopback(config.metrics_host) else context
            server.add(port, _METRICS_LIMITS, shown, metrics_app(metrics))
            urls["metrics_url"] = _url(port, shown) + METRICS_PATH
        set_up_logs(LOG_LEVELS[config.log_level])
        with _ended_by_signals(server), _short_turns():
            try:
                log(
                    "started",
                    logging.INFO,
                    **urls,
                    party=info.party,
                    epoch_id=info.epoch_id,
                    num_pages=info.num_pages,
                    page_size=info.page_size,
                    keys_per_query=info.keys_per_query,
                    digest=info.digest,
                    root=info.root,
                    proof_levels=info.proof_levels,
                    device=info.device,
                    max_micro_batch=batcher.max_micro_batch,
                    keyword_table=info.table is not None,
                    open_files=open_files,
                    max_connections=limits.connections,
                    max_connections_per_address=limits.most_of_an_address,
                )
                server.run()
            finally:
                batcher.close()
                log("stopped", **_totals(batcher))


@contextmanager
def _ended_by_signals(server: Server) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the server in order.

    uvicorn takes SIGTERM once it runs, and raises it again at its end. It never takes SIGHUP, which
    a closed terminal sends. nohup has it ignored.
    """
    before = {
        number: signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _short_turns() -> Iterator[None]:
    """Let threads hand the interpreter on sooner."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _largest_answer(info: wire.TableInfo, cap_bytes: int) -> int:
    """Bytes of a part of the cap, or of 32 queries' answer in JSON, whichever is more."""
    pages = 4096 + wire.MAX_QUERIES * (16 + info.keys_per_query * (2 * info.page_size + 16))
    return max(pages, min(cap_bytes, UNREAD_BYTES))


def _url(port: socket.socket, context: ssl.SSLContext | None) -> str:
    host, number = port.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"{'http' if context is None else 'https'}://{name}:{number}"


def _totals(batcher: MicroBatcher) -> dict[str, int]:
    statistics = batcher.statistics()
    names = ("answered", "failed", "cancelled", "expired", "refused")
    return {name: getattr(statistics, name) for name in names}
