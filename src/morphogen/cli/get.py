"""``morphogen get``: read pages, or look keys up, from two servers privately.

The client is imported when the command runs: it needs an extra, and ``--help`` does not.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.checks import needs_extra
from morphogen.cli.lookup import (
    STANDARD,
    add_lookup_options,
    check_destination,
    excerpt,
    print_values,
    read_keys,
    show_rows,
    write_output,
)
from morphogen.cli.output import OK, PrintResult
from morphogen.progress import StagedProgress

if TYPE_CHECKING:
    from morphogen.client import Client

SUMMARY = "read pages, or look keys up, from two servers privately"

SERVERS = "MORPHOGEN_SERVERS"  # the environment variable with the addresses of both


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command, except --json, which all commands have."""
    parser.add_argument(
        "pages", nargs="*", type=int, metavar="PAGE", help="numbers of pages to read, from 0"
    )
    parser.add_argument(
        "--server",
        action="append",
        metavar="URL",
        help="the https address of a server; give both, in any order "
        f"(default: both from {SERVERS}, with a space between)",
    )
    parser.add_argument(
        "--lookup",
        action="append",
        default=[],
        metavar="KEY",
        help="a key of a keyword table to look up, as text; may be repeated",
    )
    add_lookup_options(parser, "the pages, or of the value,")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="SECONDS", help="a message (default: 10)"
    )
    parser.add_argument(
        "--retries", type=int, default=3, metavar="N", help="of a message (default: 3)"
    )
    parser.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="certificates of authorities to trust, PEM"
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="allow http to other machines: the network then sees what is read",
    )


def run(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Run the command.

    Parameters
    ----------
    args : argparse.Namespace
        As `add_arguments` declares them.
    progress : callable
        Called with the reads done and the reads in all.
    print_result : callable
        Prints the data, or shows it to people.

    Returns
    -------
    int
        0; 3 if the table has not all keys.

    Raises
    ------
    MorphogenError, ModuleNotFoundError, ValueError, OSError
        If the arguments do not fit, a server fails, or the extra is missing.
    """
    by_key = bool(args.lookup) or args.lookup_file is not None
    if bool(args.pages) == by_key:
        raise ValueError("get takes either numbers of pages or keys: --lookup or --lookup-file")
    check_destination(args)
    servers = _servers(args)
    keys = read_keys(args, args.lookup)
    if by_key and not keys:
        raise ValueError(f"{args.lookup_file} has no key")
    with _connect(args, servers) as client:
        info = client.info
        about = {
            "servers": servers,
            "epoch_id": info.epoch_id,
            "num_pages": info.num_pages,
            "page_size": info.page_size,
        }
        if keys:
            found = client.lookup_many(keys)
            return print_values(keys, found, about, args.output, print_result)
        return _pages(client, args, about, progress, print_result)


def _servers(args: argparse.Namespace) -> list[str]:
    servers: list[str] = args.server or os.environ.get(SERVERS, "").split()
    if not servers:
        raise ValueError(f"give both servers: --server twice, or both in {SERVERS}")
    return servers


def _connect(args: argparse.Namespace, servers: list[str]) -> Client:
    with needs_extra("client", "get"):
        from morphogen.client import Client
    return Client(
        servers,
        timeout=args.timeout,
        retries=args.retries,
        ca_file=args.ca_file,
        insecure=args.insecure,
    )


def _pages(
    client: Client,
    args: argparse.Namespace,
    about: dict[str, Any],
    progress: StagedProgress,
    print_result: PrintResult,
) -> int:
    total = len(args.pages)
    progress(0, total, "working")
    found = client.get(args.pages)
    progress(total, total, "working")
    if args.output:
        write_output(args.output, found.tobytes())
    if args.output == STANDARD:
        return OK
    pages = [(index, page.tobytes()) for index, page in zip(args.pages, found, strict=True)]
    rows = [{"page": index} | ({} if args.output else {"hex": page.hex()}) for index, page in pages]
    where = {"output": os.fspath(args.output)} if args.output else {}
    shown = [(str(index), excerpt(page)) for index, page in pages]
    print_result(
        {**about, "pages": rows, **where},
        lambda console: show_rows(console, ("page", "begins with"), shown, args.output),
    )
    return OK
