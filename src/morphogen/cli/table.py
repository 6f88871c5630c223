"""``morphogen table build``: a keyword table from a CSV file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.cli.csv_rows import read_items
from morphogen.cli.output import OK, PrintResult
from morphogen.progress import StagedProgress, stage

if TYPE_CHECKING:
    from rich.console import Console

    from morphogen.keyword import BuiltTable

SUMMARY = "build a keyword table from a CSV file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of the command, and their options.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of ``morphogen table``.
    """
    actions = parser.add_subparsers(metavar="action", required=True)
    text = "build a keyword table from a CSV file whose first row names the columns"
    build = actions.add_parser(
        "build",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=parser.epilog,
        formatter_class=parser.formatter_class,
    )
    build.add_argument("file", type=Path, metavar="FILE.csv", help="UTF-8; every row has one key")
    build.add_argument("--key", required=True, metavar="COLUMN", help="column of the keys")
    build.add_argument(
        "-o", "--output", required=True, type=Path, metavar="TABLE", help="file to write"
    )
    build.add_argument(
        "--value",
        metavar="COLUMN",
        help="column of the values (default: the whole row, as a JSON object)",
    )
    build.add_argument("--page-size", type=int, default=4096, metavar="BYTES", help="default: 4096")
    build.add_argument("--delimiter", default=",", metavar="CHARACTER", help="default: a comma")
    build.add_argument("--force", action="store_true", help="replace TABLE where it is there")
    # Without a default, since the command before it has the same option.
    build.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print JSON instead of tables",
    )


def run(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Build a table as the arguments say, and print its facts.

    Parameters
    ----------
    args : argparse.Namespace
    progress : callable
        Called with the work done and the work in all, for one stage after the other.
    print_result : callable
        Prints the result as JSON, or shows it to people.

    Returns
    -------
    int
        0.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    ValueError
        If the CSV file or an option is wrong, or the output is there already.
    TableBuildError
        If there is no table of these rows.
    """
    # Here, since the parser of every command loads this module.
    from morphogen.checks import check_range
    from morphogen.keyword import build_table
    from morphogen.keyword.file import write_table
    from morphogen.pages import MAX_PAGE_SIZE

    if args.output.resolve() == args.file.resolve():
        raise ValueError(f"{args.output} is the CSV file itself")
    if not args.force and os.path.lexists(args.output):
        raise ValueError(f"{args.output} is there already: --force replaces it")
    if not args.output.parent.is_dir():
        raise ValueError(f"{args.output}: there is no folder {args.output.parent}")
    check_range("--page-size", args.page_size, 1, MAX_PAGE_SIZE)
    if len(args.delimiter) != 1 or args.delimiter in '"\r\n':
        raise ValueError(f"--delimiter must be one character, not {args.delimiter!r}")
    working = stage(progress, "working")
    items = read_items(
        args.file,
        args.key,
        args.value,
        page_size=args.page_size,
        delimiter=args.delimiter,
        progress=working,
    )
    built = build_table(items, page_size=args.page_size, progress=working)
    header = write_table(args.output, built.pages, built.layout, progress=working)
    data = _as_dict(args.output, built, header.digest)
    print_result(data, lambda console: _show(data, console))
    return OK


def _as_dict(path: Path, built: BuiltTable, digest: bytes) -> dict[str, Any]:
    from morphogen.keyword.file import HEADER_BYTES

    layout = built.layout
    return {
        "table": os.fspath(path),
        "entries": layout.entries,
        "pages": layout.num_pages,
        "page_size": layout.page_size,
        "slots_per_page": layout.slots_per_page,
        "load": layout.load,
        "largest_value": layout.value_size,
        "bytes": HEADER_BYTES + layout.num_pages * layout.page_size,
        "seed_tries": built.tries,
        "sha256": digest.hex(),
    }


def _show(data: dict[str, Any], console: Console) -> None:
    from rich import box
    from rich.table import Table

    from morphogen.cli.tables import print_table

    console.print(f"Table  {data['table']}", soft_wrap=True)
    console.print(f"SHA-256 of its pages  {data['sha256']}", soft_wrap=True)
    rows = Table(box=box.SIMPLE_HEAD, show_header=False)
    rows.add_column()
    rows.add_column(justify="right")
    for name, text in (
        ("entries", f"{data['entries']:,}"),
        ("pages", f"{data['pages']:,}"),
        ("bytes a page", f"{data['page_size']:,}"),
        ("slots a page", f"{data['slots_per_page']:,}"),
        ("load", f"{data['load']:.1%}"),
        ("largest value", f"{data['largest_value']:,} bytes"),
        ("file", f"{data['bytes']:,} bytes"),
        ("seeds tried", f"{data['seed_tries']}"),
    ):
        rows.add_row(name, text)
    print_table(rows, console)
