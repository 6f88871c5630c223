"""``morphogen table build``: the rows of a file become a keyword table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import morphogen.cli.table_read as table_read
from morphogen.cli.arguments import byte_size
from morphogen.cli.output import OK, PrintResult
from morphogen.cli.streams import check_output_file, output_file, takes_output, writing
from morphogen.cli.table_rows import add_row_options, read_rows, row_options, with_place
from morphogen.errors import TableBuildError
from morphogen.progress import StagedProgress, stage

if TYPE_CHECKING:
    from rich.console import Console

_LARGEST_AUTO = 1 << 16  # bytes of a page, for the longest field, where pages are chosen later


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``morphogen table build``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    add_row_options(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="TABLE",
        help="file to write; - for the standard output",
    )
    parser.add_argument(
        "--page-size",
        type=_page_size,
        default=4096,
        metavar="BYTES",
        help="auto for the size that moves the fewest bytes (default: 4k)",
    )
    parser.add_argument(
        "--value-size",
        type=byte_size,
        metavar="BYTES",
        help="of a slot; longer values take several (default: what makes the table small)",
    )
    parser.add_argument(
        "--proof-levels",
        type=int,
        metavar="N",
        help="levels of a page's proof that stand in it; 0 for none (default: as the table needs)",
    )
    parser.add_argument("--force", action="store_true", help="replace TABLE where it is there")


def _page_size(text: str) -> int | None:
    return None if text == "auto" else byte_size(text)


def build(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
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
        If the file of rows or an option is wrong, or the output is there already.
    TableBuildError
        If there is no table of these rows.
    """
    # Here, since the parser of every command loads this module.
    from morphogen.checks import check_range
    from morphogen.keyword.builder import TableBuilder
    from morphogen.keyword.file import send_table
    from morphogen.keyword.layout import MAX_FRAGMENTS
    from morphogen.pages import MAX_PAGE_SIZE

    taken = takes_output(args.json, {"-o": args.output})
    if not taken:
        check_output_file(args.output, args.file, force=args.force)
    if args.page_size is not None:
        check_range("--page-size", args.page_size, 1, MAX_PAGE_SIZE)
    options = row_options(args, MAX_FRAGMENTS * (args.page_size or _LARGEST_AUTO))
    builder = TableBuilder(
        page_size=args.page_size,
        value_size=args.value_size,
        proof_levels=args.proof_levels,
        duplicates=args.duplicates,
    )
    places = read_rows(args.file, options, builder.add_many, progress)
    try:
        if taken:
            built = builder.build(progress)
        else:
            written = builder.write(output_file(args.output, force=args.force), progress)
    except TableBuildError as error:
        raise with_place(error, places) from None
    if taken:
        with writing():
            sealing = stage(progress, "writing")
            send_table(sys.stdout.buffer, built.pages, built.layout, progress=sealing)
        return OK
    data = table_read.facts(
        args.output,
        written.header,
        rows=len(places),
        seed_tries=written.tries,
        page_size_reason=written.reason,
        advice=written.advice,
    )
    print_result(data, lambda console: _show(data, console))
    return OK


def _show(data: dict[str, Any], console: Console) -> None:
    table_read.show_facts(data, console)
    for name in ("page_size_reason", "advice"):
        if data[name]:
            console.print(data[name])
