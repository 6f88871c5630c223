"""``morphogen serve``."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from morphogen.checks import from_hexadecimal, needs_extra
from morphogen.cli.arguments import byte_size
from morphogen.cli.output import OK, PrintResult
from morphogen.cli.streams import STANDARD, input_file
from morphogen.progress import StagedProgress, stage

SUMMARY = "serve a table's pages as one of the two servers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "pages",
        type=Path,
        nargs="?",
        metavar="PAGES",
        help="a file of pages, a keyword table, or sealed pages; a link to one; a folder of "
        "epochs; - for the standard input",
    )
    parser.add_argument(
        "--table",
        type=_named_path,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a table to serve below /t/NAME, instead of PAGES; may be given several times",
    )
    parser.add_argument(
        "--party",
        type=int,
        required=True,
        choices=(0, 1),
        help="which of the two servers this is; the other operator gives the other",
    )
    parser.add_argument("--port", type=int, required=True, help="0 for any that is free")
    parser.add_argument(
        "--page-size",
        type=byte_size,
        metavar="BYTES",
        help="bytes a page of a file of pages (default: 4k); a table says it itself",
    )
    for option, default, text in (
        ("--keys-per-query", 3, "keys that each query has, 1 to 3"),
        ("--max-queued", 1024, "queries that may wait; more are told to come back"),
    ):
        parser.add_argument(
            option, type=int, default=default, metavar="N", help=f"{text} (default: {default})"
        )
    parser.add_argument(
        "--epoch",
        type=int,
        metavar="N",
        help="version of the table: the same on both servers (default: that of its manifest, the "
        "number at the end of its name, or 0)",
    )
    parser.add_argument(
        "--max-micro-batch",
        type=int,
        metavar="N",
        help="queries that may share a pass (default: the engine's own width)",
    )
    parser.add_argument(
        "--max-wait",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long a query may wait (default: 30)",
    )
    parser.add_argument(
        "--watch",
        type=float,
        metavar="SECONDS",
        help="look so often whether there is a new epoch (default: only at SIGHUP)",
    )
    parser.add_argument(
        "--owner",
        metavar="HEX",
        help="public key: serve only what manifests by this owner are about (default: whatever is "
        "there)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:N, cuda:all, names such as cuda:0,cuda:2, or auto, the default",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="on the CPU, of each shard (default: one for each core it may use)",
    )
    parser.add_argument(
        "--lanes",
        type=int,
        metavar="N",
        help="on a GPU, passes under way at a time: 1, 2 or 4 (default: 2)",
    )
    parser.add_argument(
        "--graph", action="store_true", help="on a GPU, launch passes by replaying a CUDA graph"
    )
    parser.add_argument(
        "--log-level",
        choices=("info", "warning", "error"),
        default="info",
        help="the least that is logged; requests are info (default: info)",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="PEM", help="certificate, for TLS")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="its private key")
    parser.add_argument(
        "--tls-client-ca",
        type=Path,
        metavar="PEM",
        help="authorities: serve only clients with a certificate of theirs",
    )
    parser.add_argument(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="serve metrics there, 0 for any that is free (default: nowhere)",
    )
    parser.add_argument("--metrics-host", default="127.0.0.1", help="default: 127.0.0.1")
    _add_cluster(parser)
    _add_limits(parser)
    parser.add_argument(
        "--insecure", action="store_true", help="serve beyond loopback without TLS all the same"
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    cluster = parser.add_argument_group("cluster", "parts of the pages on many hosts")
    cluster.add_argument(
        "--cluster",
        choices=("ray",),
        help="with the extra ray: each of its processes holds a part of every table",
    )
    for option, text in (
        ("--shards", "parts of each table"),
        ("--replicas", "processes with the same part (default: 1)"),
    ):
        cluster.add_argument(option, type=int, metavar="N", help=text)
    cluster.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="a cluster that runs, of this party alone (default: local, one of this server's own)",
    )
    for option, text in (
        ("--shard-timeout", "how long a pass may take at all parts (default: the engine's own)"),
        ("--hedge", "ask another replica, too, after so long (default: never)"),
    ):
        cluster.add_argument(option, type=float, metavar="SECONDS", help=text)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits", "how much clients may take")
    for option, default, text in (
        ("--max-connections", "2048, or what open files allow", "connections"),
        ("--max-connections-per-address", "a quarter of them", "connections of one address"),
        (
            "--max-queued-per-client",
            "a quarter of --max-queued",
            "queries of one address that may wait",
        ),
        ("--max-unread", "256 MiB, or two answers", "bytes of answers that clients do not read"),
    ):
        kind = byte_size if option == "--max-unread" else int
        limits.add_argument(option, type=kind, metavar="N", help=f"{text} (default: {default})")
    for name, seconds, text in (
        ("head", 10, "send the head of a request"),
        ("body", 20, "send its body"),
        ("answer", 60, "read the answer"),
        ("idle", 15, "begin the next request"),
    ):
        limits.add_argument(
            f"--{name}-timeout",
            type=float,
            default=float(seconds),
            metavar="SECONDS",
            help=f"how long a client may take to {text} (default: {seconds})",
        )
    limits.add_argument(
        "--trusted-proxies",
        type=_names,
        default=(),
        metavar="ADDRESS,...",
        help="proxies, or networks of them, whose X-Forwarded-For tells a client's address, with "
        "commas between (default: none)",
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _named_path(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"must be NAME=PATH, not {text!r}")
    return name, Path(path)


def run(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Serve until a signal ends the process."""
    with _hangups_kept():
        _serve(args, progress)
    return OK


@contextmanager
def _hangups_kept() -> Iterator[None]:
    """Keep SIGHUP until the server heeds it, which takes a while; at its end it means nothing."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.sigtimedwait({signal.SIGHUP}, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(args: argparse.Namespace, progress: StagedProgress) -> None:
    with needs_extra("server"):
        from morphogen.epochs.manifest import KEY_BYTES
        from morphogen.service.config import ClusterConfig
        from morphogen.service.limits import MAX_CONNECTIONS, Limits
        from morphogen.service.run import ServerConfig, serve

    owner = None if args.owner is None else from_hexadecimal("owner", args.owner, KEY_BYTES)
    cluster = _cluster_options(args)
    config = ServerConfig(
        path=args.pages,
        tables=_tables(args.table),
        party=args.party,
        host=args.host,
        port=args.port,
        page_size=args.page_size,
        keys_per_query=args.keys_per_query,
        epoch=args.epoch,
        device=args.device,
        threads=args.threads,
        lanes=args.lanes,
        graph=args.graph,
        cluster=None if cluster is None else ClusterConfig(**cluster),
        max_micro_batch=args.max_micro_batch,
        max_queued=args.max_queued,
        max_queued_per_client=args.max_queued_per_client,
        max_wait=args.max_wait,
        watch=args.watch,
        owner=owner,
        log_level=args.log_level,
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        tls_client_ca=args.tls_client_ca,
        insecure=args.insecure,
        metrics_host=args.metrics_host,
        metrics_port=args.metrics_port,
        limits=Limits(
            connections=MAX_CONNECTIONS if args.max_connections is None else args.max_connections,
            per_address=args.max_connections_per_address,
            unread_bytes=args.max_unread,
            head_seconds=args.head_timeout,
            body_seconds=args.body_timeout,
            answer_seconds=args.answer_timeout,
            idle_seconds=args.idle_timeout,
            trusted_proxies=args.trusted_proxies,
        ),
    )
    # After the options are checked: it may take a while until all has come through a pipe.
    config = replace(
        config,
        path=config.path and input_file(config.path),
        tls_cert=config.tls_cert and input_file(config.tls_cert),
        tls_key=config.tls_key and input_file(config.tls_key),
        tls_client_ca=config.tls_client_ca and input_file(config.tls_client_ca),
    )
    serve(config, stage(progress, "reading"))


def _cluster_options(args: argparse.Namespace) -> dict[str, Any] | None:
    """What is said of a cluster; None if there is to be none."""
    options = {
        "--shards": args.shards,
        "--replicas": args.replicas,
        "--address": args.address,
        "--shard-timeout": args.shard_timeout,
        "--hedge": args.hedge,
    }
    given = {option: value for option, value in options.items() if value is not None}
    if args.cluster is None:
        if given:
            raise ValueError(f"{next(iter(given))} is for a cluster: give --cluster ray, too")
        return None
    if args.shards is None:
        raise ValueError(f"--cluster {args.cluster} needs --shards, the parts of each table")
    if args.pages == STANDARD:
        raise ValueError("a cluster needs a file that every host can open, not the standard input")
    names = {option: option[2:].replace("-", "_") for option in given}
    names["--shard-timeout"] = "timeout"
    return {"kind": args.cluster, **{names[option]: value for option, value in given.items()}}


def _tables(named: list[tuple[str, Path]]) -> dict[str, Path]:
    tables: dict[str, Path] = {}
    for name, path in named:
        if name in tables:
            raise ValueError(f"each --table must have a name of its own, not {name!r} twice")
        tables[name] = path
    return tables
