"""Run the service: socket, TLS, structured logs, an orderly end."""

from __future__ import annotations

import json
import logging
import signal
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

import morphogen.wire as wire
from morphogen.batcher import MAX_QUEUED, MicroBatcher
from morphogen.checks import check_range, check_seconds, is_loopback, printable
from morphogen.engine import device_candidates, open_engine
from morphogen.errors import TableFileError
from morphogen.keyword.file import is_table, open_table, read_header
from morphogen.pages import PageMatrix, check_epoch
from morphogen.planner import MAX_KEYS_PER_QUERY
from morphogen.progress import Progress
from morphogen.service.app import (
    LOGGER,
    MAX_WAIT_SECONDS,
    create_app,
    describe_table,
    digest_pages,
)
from morphogen.service.tls import load_certificate

PAGE_SIZE = 4096  # of a file of pages, unless told otherwise
LOG_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
BACKLOG = 2048
MAX_CONNECTIONS = 2048  # each may hold a request and an answer in memory
GRACE_SECONDS = 30  # for clients that read slowly, once the server stops


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The options of a server.

    Attributes
    ----------
    path : pathlib.Path
        A file of pages, or a keyword table, which says its page size itself.
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
    max_wait : float
        Seconds that a query may wait.
    tls_cert, tls_key : pathlib.Path or None
        PEM files; both or neither.
    insecure : bool
        Whether to serve beyond loopback without TLS.
    log_level : str
        The least that is logged: "info", "warning" or "error".

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
    max_wait: float = MAX_WAIT_SECONDS
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    log_level: str = "info"

    def __post_init__(self) -> None:
        check_range("port", self.port, 0, 65535)
        if self.max_queued < wire.MAX_QUERIES:
            raise ValueError(
                f"max_queued must be at least {wire.MAX_QUERIES}, the queries of one request, not "
                f"{self.max_queued}"
            )
        check_seconds("max_wait", self.max_wait, above_zero=True)
        if self.log_level not in LOG_LEVELS:
            raise ValueError(
                f"log_level must be one of {', '.join(LOG_LEVELS)}, not {self.log_level!r}"
            )
        check_epoch(self.epoch)
        check_range("keys_per_query", self.keys_per_query, 1, MAX_KEYS_PER_QUERY)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("a certificate and its key go together: one of them is missing")
        if self.tls_cert is None and not self.insecure and not is_loopback(self.host):
            raise ValueError(
                f"{self.host} is not loopback: whoever sees the traffic of both servers sees every "
                "page that is read. Give a certificate, or say --insecure"
            )


def serve(config: ServerConfig, progress: Progress | None = None) -> None:
    """Serve until SIGTERM, SIGHUP or SIGINT, then answer what was accepted.

    Parameters
    ----------
    config : ServerConfig
        The options.
    progress : callable, optional
        Called while the pages are read for their digest, with the bytes done and those in all.

    Raises
    ------
    OSError
        If a file cannot be read, or the address not be bound.
    TableFileError, ValueError
        If the file is a spoiled keyword table, or an option does not fit it.
    DeviceError
        If the device cannot be used.
    """
    _set_up_logs(LOG_LEVELS[config.log_level])
    if config.tls_cert is not None and config.tls_key is not None:
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), config.tls_cert, config.tls_key)
    device_candidates(config.device)  # before the pages are read, which may last
    layout = None
    if is_table(config.path):
        if config.page_size is not None:
            raise ValueError(
                f"{config.path} is a keyword table, which says its page size itself: give none, "
                f"not {config.page_size}"
            )
        promised = read_header(config.path).digest.hex()
        pages, described = open_table(config.path, config.epoch, verify=False)
        layout = described.as_dict()
    else:
        promised = None
        size = PAGE_SIZE if config.page_size is None else config.page_size
        pages = PageMatrix.open(config.path, size, config.epoch)
    digest = digest_pages(pages, progress)  # verifies a keyword table in the same pass
    if promised is not None and digest != promised:
        raise TableFileError(f"{config.path} was altered: its pages do not have their SHA-256")
    with (
        _bind(config) as listener,
        open_engine(pages, config.device, threads=config.threads) as engine,
        MicroBatcher(
            engine, max_micro_batch=config.max_micro_batch, max_queued=config.max_queued
        ) as batcher,
    ):
        info = describe_table(
            engine,
            config.party,
            keys_per_query=config.keys_per_query,
            digest=digest,
            layout=layout,
        )
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(batcher, info, max_wait=config.max_wait),
                lifespan="on",
                ws="none",
                proxy_headers=False,
                log_config=None,
                access_log=False,
                server_header=False,
                ssl_certfile=config.tls_cert,
                ssl_keyfile=None if config.tls_key is None else str(config.tls_key),
                timeout_graceful_shutdown=GRACE_SECONDS,
                limit_concurrency=MAX_CONNECTIONS,
            )
        )
        with _ended_by_signals(server):
            try:
                host, port = listener.getsockname()[:2]
                name = f"[{host}]" if ":" in host else host
                log(
                    "started",
                    url=f"{'http' if config.tls_cert is None else 'https'}://{name}:{port}",
                    party=info.party,
                    epoch_id=info.epoch_id,
                    num_pages=info.num_pages,
                    page_size=info.page_size,
                    keys_per_query=info.keys_per_query,
                    digest=info.digest,
                    device=info.device,
                    max_micro_batch=batcher.max_micro_batch,
                    keyword_table=layout is not None,
                )
                server.run(sockets=[listener])
            finally:
                batcher.close()
                log("stopped", **_totals(batcher))


@contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
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


def _bind(config: ServerConfig) -> socket.socket:
    # The protocol is named because asyncio switches Nagle's algorithm off only where it is: head
    # and body of a small answer would be 40 ms apart.
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {config.host}:{config.port}: {error.strerror}") from None
    return listener


def _totals(batcher: MicroBatcher) -> dict[str, int]:
    statistics = batcher.statistics()
    names = ("answered", "failed", "cancelled", "expired", "refused")
    return {name: getattr(statistics, name) for name in names}


def log(event: str, **fields: Any) -> None:
    """Write one event to the log.

    Parameters
    ----------
    event : str
        Its name.
    **fields
        More fields of the event, as JSON can write them.
    """
    LOGGER.info(event, extra={"fields": fields})


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
        }
        if record.name == LOGGER.name:
            line |= {"event": record.getMessage(), **getattr(record, "fields", {})}
        else:
            line |= {"event": "library", "logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            # Not the message, which may quote a client.
            line["error"] = record.exc_info[0].__name__
        return json.dumps(printable(line))


def _set_up_logs(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    LOGGER.setLevel(level)
    LOGGER.propagate = False
    LOGGER.handlers = [handler]
    uvicorn_log = logging.getLogger("uvicorn")
    uvicorn_log.setLevel(max(level, logging.WARNING))
    uvicorn_log.propagate = False
    uvicorn_log.handlers = [handler]
