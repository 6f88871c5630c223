"""``morphogen get``: read pages, or look keys up, from two servers privately.

The client is imported when the command runs: it needs an extra, and ``--help`` does not.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.checks import needs_extra
from morphogen.cli.output import FAILED, OK, PrintResult
from morphogen.cli.streams import check_output, complain, write_bytes
from morphogen.progress import StagedProgress

if TYPE_CHECKING:
    from rich.console import Console

    from morphogen.client import Client

SUMMARY = "read pages, or look keys up, from two servers privately"

_SHOWN_BYTES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command, except --json, which all commands have."""
    parser.add_argument(
        "pages", nargs="*", type=int, metavar="PAGE", help="numbers of pages to read, from 0"
    )
    parser.add_argument(
        "--server",
        action="append",
        required=True,
        metavar="URL",
        help="the https address of a server; give both, in any order",
    )
    parser.add_argument(
        "--lookup",
        action="append",
        default=[],
        metavar="KEY",
        help="a key of a keyword table to look up, as text; may be repeated",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write the bytes of the pages, or of the value, to a file (- for the standard output)",
    )
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
        0; 1 if the table has no such key.

    Raises
    ------
    MorphogenError, ModuleNotFoundError, ValueError, OSError
        If the arguments do not fit, a server fails, or the extra is missing.
    """
    if bool(args.pages) == bool(args.lookup):
        raise ValueError("get takes either numbers of pages or --lookup")
    if args.output and len(args.lookup) > 1:
        raise ValueError(f"-o writes one value: give --lookup once, not {len(args.lookup)} times")
    if args.output == Path("-") and args.json:
        raise ValueError("-o - and --json would both write to the standard output")
    if args.output == Path("-"):
        check_output()
    with _connect(args) as client:
        info = client.info
        about = {
            "servers": args.server,
            "epoch_id": info.epoch_id,
            "num_pages": info.num_pages,
            "page_size": info.page_size,
        }
        if args.lookup:
            return _lookup(client, args, about, print_result)
        return _pages(client, args, about, progress, print_result)


def _connect(args: argparse.Namespace) -> Client:
    with needs_extra("client", "get"):
        from morphogen.client import Client
    return Client(
        args.server,
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
        _write(args.output, found.tobytes())
    if args.output == Path("-"):
        return OK
    rows = [
        {"page": index} | ({} if args.output else {"hex": page.tobytes().hex()})
        for index, page in zip(args.pages, found, strict=True)
    ]
    where = {"output": str(args.output)} if args.output else {}
    shown = [
        (str(index), _excerpt(page.tobytes()))
        for index, page in zip(args.pages, found, strict=True)
    ]
    print_result(
        {**about, "pages": rows, **where},
        lambda console: _show(console, ("page", "begins with"), shown, args.output),
    )
    return OK


def _lookup(
    client: Client,
    args: argparse.Namespace,
    about: dict[str, Any],
    print_result: PrintResult,
) -> int:
    # The bytes that were typed, in any encoding of the terminal.
    found = client.lookup_many([os.fsencode(key) for key in args.lookup])
    code = FAILED if None in found else OK
    if args.output and found[0] is not None:
        _write(args.output, found[0])
    if args.output == Path("-"):
        if code:
            complain("the table has no such key")
        return code
    rows = [
        {"key": key, "found": value is not None}
        | ({} if args.output or value is None else {"value": _text(value), "hex": value.hex()})
        for key, value in zip(args.lookup, found, strict=True)
    ]
    shown = [
        (key, "not there" if value is None else (_text(value) or _excerpt(value)))
        for key, value in zip(args.lookup, found, strict=True)
    ]
    print_result(
        {**about, "values": rows},
        lambda console: _show(console, ("key", "value"), shown, args.output),
    )
    return code


def _write(path: Path, content: bytes) -> None:
    if path == Path("-"):
        write_bytes(content)
    else:
        path.write_bytes(content)


def _text(value: bytes) -> str | None:
    """A value as text; None if a terminal could not show it as it is."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def _excerpt(content: bytes) -> str:
    more = " ..." if len(content) > _SHOWN_BYTES else ""
    return content[:_SHOWN_BYTES].hex(" ") + more


def _show(
    console: Console,
    columns: tuple[str, str],
    rows: Sequence[tuple[str, str]],
    output: Path | None,
) -> None:
    from rich.table import Table

    shown = Table()
    for column in columns:
        shown.add_column(column, overflow="fold")  # a long value is shown in full
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    if output:
        console.print(f"written to {output}", soft_wrap=True)
