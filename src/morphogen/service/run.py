"""Run the service: socket, TLS, structured logs, an orderly end."""

from __future__ import annotations

import logging
import signal
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import morphogen.wire as wire
from morphogen.checks import is_loopback
from morphogen.progress import Progress
from morphogen.service.app import create_tables_app
from morphogen.service.cap import UNREAD_BYTES
from morphogen.service.clustering import Cluster
from morphogen.service.config import LOG_LEVELS, ServerConfig as ServerConfig
from morphogen.service.generations import Generations
from morphogen.service.limits import Limits
from morphogen.service.listener import bind, listen
from morphogen.service.loading import Loader
from morphogen.service.logs import log, set_up_logs
from morphogen.service.metrics import METRICS_PATH, Metrics, metrics_app
from morphogen.service.opening import Opener, ProcessOpener
from morphogen.service.reload import Reloader
from morphogen.service.server import Server
from morphogen.service.source import Fault
from morphogen.service.succession import Succession, refuse
from morphogen.service.tls import server_context
from morphogen.service.worker import Worker

_METRICS_LIMITS = Limits(connections=16, per_address=16)
# The thread that answers chunks and the event loop hand the interpreter to each other. With
# Python's 5 ms a lone client would wait longer for that than for a small table's pages.
_SWITCH_SECONDS = 0.0005


def serve(config: ServerConfig, progress: Progress | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was accepted. SIGHUP reloads the tables.

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
    ManifestError, SourceError, TableFileError, ValueError
        If the file is a spoiled table, of which a page, a sibling, the cap or the root is wrong,
        it is not the owner's, or an option does not fit it.
    DeviceError
        If the device cannot be used.
    """
    context = None
    if config.tls_cert is not None and config.tls_key is not None:
        context = server_context(config.tls_cert, config.tls_key, config.tls_client_ca)
    # All that can be refused is refused before the pages are read, which may last.
    metrics, worker, successions = Metrics(), Worker(), list[Succession]()
    openers = _openers(config, metrics)
    limits, open_files = config.limits.within_open_files()
    reloader = Reloader(successions, worker, config.watch)
    common = Loader(
        party=config.party,
        page_size=config.page_size,
        keys_per_query=config.keys_per_query,
        epoch=config.epoch,
        max_micro_batch=config.max_micro_batch,
        max_queued=config.max_queued,
        max_queued_per_client=config.share,
        owner=config.owner,
    )
    with _reloaded_by_hangups(reloader), ExitStack() as opened:
        ports = [opened.enter_context(bind(config.host, config.port))]
        if config.metrics_port is not None:
            ports.append(opened.enter_context(bind(config.metrics_host, config.metrics_port)))
        new_opener = opened.enter_context(openers)
        tables, found = dict[str, Generations](), dict[str, list[Fault]]()
        for name, path in config.paths.items():
            opener = metrics.openers[name] = new_opener()
            loader = replace(common, opener=opener)
            start = loader.start(path, progress)
            tables[name] = Generations(start.generation)
            found[name] = start.faults
            opened.callback(tables[name].close)
            successions.append(
                Succession(
                    name,
                    path,
                    tables[name],
                    loader=loader,
                    metrics=metrics,
                    worker=worker,
                    start=start,
                )
            )
            del start  # a generation is kept alive by who serves it, and nobody else
        limits = limits.with_answers_of(max(map(_largest_answer, tables.values())))
        app = create_tables_app(
            tables,
            max_wait=config.max_wait,
            metrics=metrics,
            trusted_proxies=limits.trusted_proxies,
        )
        server = Server(app, limits)
        server.accompany(reloader)
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
        with _ended_by_sigterm(server), _short_turns():
            try:
                log(
                    "started",
                    logging.INFO,
                    **urls,
                    party=config.party,
                    **_described(tables),
                    open_files=open_files,
                    max_connections=limits.connections,
                    max_connections_per_address=limits.most_of_an_address,
                )
                for name, faults in found.items():
                    for fault in faults:
                        refuse(metrics, name, fault.path, fault.reason)
                server.run()
            finally:
                for generations in tables.values():
                    generations.close()
                log("stopped", **_totals(tables.values()))


def _openers(
    config: ServerConfig, metrics: Metrics
) -> AbstractContextManager[Callable[[], Opener]]:
    """What makes the opener of each table, and refuses at once what can never be opened."""
    if config.cluster is not None:
        return Cluster(config.cluster, config.device, config.threads)
    # What nobody reads is not counted.
    phases = None if config.metrics_port is None else metrics.chunks
    opener = ProcessOpener(config.device, config.threads, config.lanes, config.graph, phases)
    opener.check()
    return nullcontext(lambda: opener)


@contextmanager
def _ended_by_sigterm(server: Server) -> Iterator[None]:
    """Let SIGTERM end the server in order: uvicorn takes it once it runs, and raises it again."""
    before = signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _reloaded_by_hangups(reloader: Reloader) -> Iterator[None]:
    """Let SIGHUP reload the tables: one that comes before they are served, once they are.

    Also where nohup has it ignored: the end of a terminal then asks for what is there already.
    """
    before = signal.signal(signal.SIGHUP, lambda *_: reloader.request())
    # Whoever starts the server may have kept them.
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGHUP, before)


@contextmanager
def _short_turns() -> Iterator[None]:
    """Let threads hand the interpreter on sooner."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _described(tables: Mapping[str, Generations]) -> dict[str, Any]:
    """What a log line says of tables."""
    if len(tables) == 1 and "" in tables:
        return _describe(tables[""])
    return {"tables": [{"table": name, **_describe(tables[name])} for name in tables]}


def _describe(generations: Generations) -> dict[str, Any]:
    info, batcher = generations.current.info, generations.current.batcher
    return {
        "epoch_id": info.epoch_id,
        "num_pages": info.num_pages,
        "page_size": info.page_size,
        "keys_per_query": info.keys_per_query,
        "digest": info.digest,
        "root": info.root,
        "proof_levels": info.proof_levels,
        "device": info.device,
        "max_micro_batch": batcher.max_micro_batch,
        "keyword_table": info.table is not None,
    }


def _largest_answer(generations: Generations) -> int:
    """Bytes of a part of the cap, or of 32 queries' answer in JSON, whichever is more."""
    info, cap = generations.current.info, generations.current.cap
    pages = 4096 + wire.MAX_QUERIES * (16 + info.keys_per_query * (2 * info.page_size + 16))
    return max(pages, min(0 if cap is None else cap.nbytes, UNREAD_BYTES))


def _url(port: socket.socket, context: ssl.SSLContext | None) -> str:
    host, number = port.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"{'http' if context is None else 'https'}://{name}:{number}"


def _totals(tables: Iterable[Generations]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for generations in tables:
        statistics = generations.statistics()
        for name in ("answered", "failed", "cancelled", "expired", "refused"):
            totals[name] += getattr(statistics, name)
    return totals
