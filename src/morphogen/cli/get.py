"""``morphogen get``: read pages, or look keys up, from two servers privately.

The client is imported when the command runs: it needs an extra, and ``--help`` does not.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.checks import needs_extra
from morphogen.cli.credentials import add_credential_options, read_credentials
from morphogen.cli.lookup import (
    add_lookup_options,
    check_destination,
    print_values,
    read_keys,
    show_rows,
    write_output,
)
from morphogen.cli.output import OK, PrintResult
from morphogen.cli.streams import STANDARD
from morphogen.cli.values import excerpt
from morphogen.errors import EpochMismatchError
from morphogen.progress import Progress, StagedProgress, stage

if TYPE_CHECKING:
    from morphogen.client import Client

SUMMARY = "read pages, or look keys up, from two servers privately"

SERVERS = "MORPHOGEN_SERVERS"  # the environment variable with the addresses of both
_AT_A_TIME = 2048  # queries of lookups, of three pages each
_TRIES = 3


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
        "--retries", type=int, default=10, metavar="N", help="of a message (default: 10)"
    )
    add_credential_options(parser)
    parser.add_argument(
        "--root",
        metavar="HEX",
        help="the root that the table must have, as its builder says: every page is checked",
    )
    parser.add_argument(
        "--owner",
        metavar="HEX",
        help="the public key of the table's owner, whose manifest each epoch must have",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="refuse a table whose pages cannot be checked (default: check those that can be)",
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="keep there what pages are checked against, 16 MiB at most as tables are built",
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
        if keys:
            found = _look_up(client, keys, stage(progress, "working"))
            about = _about(client, servers)
            proven = client.authenticated
            return print_values(keys, found, about, args.output, print_result, proven=proven)
        pages = _read(client, args.pages, stage(progress, "working"))
        return _print_pages(pages, _about(client, servers), args, print_result)


def _about(client: Client, servers: list[str]) -> dict[str, Any]:
    """The table that was read: only now, since it may have changed."""
    info = client.info
    return {
        "servers": servers,
        "epoch_id": info.epoch_id,
        "num_pages": info.num_pages,
        "page_size": info.page_size,
        "authenticated": client.authenticated,
        "root": None if client.root is None else client.root.hex(),
    }


def _servers(args: argparse.Namespace) -> list[str]:
    servers: list[str] = args.server or os.environ.get(SERVERS, "").split()
    if not servers:
        raise ValueError(f"give both servers: --server twice, or both in {SERVERS}")
    return servers


def _connect(args: argparse.Namespace, servers: list[str]) -> Client:
    with needs_extra("client", "get"):
        from morphogen.client import Client
        from morphogen.client.rules import check_indices
        from morphogen.dpf import MAX_PAGES
    check_indices(args.pages, MAX_PAGES)  # what no table has, before a server is asked
    return Client(
        servers,
        timeout=args.timeout,
        retries=args.retries,
        **read_credentials(args),
        insecure=args.insecure,
        root=args.root,
        owner=args.owner,
        verify=args.verify or None,
        cache_dir=args.cache_dir,
    )


def _look_up(client: Client, keys: list[bytes], progress: Progress) -> list[bytes | None]:
    """Look keys up in one epoch, some at a time: the pages of all might not fit the memory."""
    from morphogen.client.rules import lookup_layout

    for _ in range(_TRIES):
        keys_at_a_time = _AT_A_TIME // lookup_layout(client.info).fragments
        epoch, found = client.info.epoch_id, list[bytes | None]()
        for start in range(0, len(keys), keys_at_a_time):
            progress(start, len(keys))
            found += client.lookup_many(keys[start : start + keys_at_a_time])
        if client.info.epoch_id == epoch:
            return found
    raise EpochMismatchError(f"the table changed during each of {_TRIES} tries: ask for fewer keys")


def _read(client: Client, indices: list[int], progress: Progress) -> list[tuple[int, bytes]]:
    """Read the contents of pages: without their proofs, of no more use once they are checked."""
    from morphogen.authentication.hashing import HASH_BYTES

    progress(0, len(indices))
    found = client.get(indices)
    found = found[:, : client.info.page_size - HASH_BYTES * (client.info.proof_levels or 0)]
    progress(len(indices), len(indices))
    return [(index, page.tobytes()) for index, page in zip(indices, found, strict=True)]


def _print_pages(
    pages: list[tuple[int, bytes]],
    about: dict[str, Any],
    args: argparse.Namespace,
    print_result: PrintResult,
) -> int:
    if args.output:
        write_output(args.output, b"".join(page for _, page in pages))
    if args.output == STANDARD:
        return OK
    rows = [{"page": index} | ({} if args.output else {"hex": page.hex()}) for index, page in pages]
    where = {"output": os.fspath(args.output)} if args.output else {}
    shown = [(str(index), excerpt(page)) for index, page in pages]
    print_result(
        {**about, "pages": rows, **where},
        lambda console: show_rows(console, ("page", "begins with"), shown, args.output),
    )
    return OK
