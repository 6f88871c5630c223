"""``morphogen table build``: the rows of a file become a keyword table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import morphogen.cli.table_read as table_read
from morphogen.cli.arguments import byte_size
from morphogen.cli.output import OK, PrintResult
from morphogen.cli.rows.options import FORMATS, RowOptions
from morphogen.cli.streams import check_output_file, input_file, takes_output, writing
from morphogen.errors import TableBuildError
from morphogen.progress import StagedProgress, stage

if TYPE_CHECKING:
    from rich.console import Console

    from morphogen.cli.rows.places import Places
    from morphogen.keyword.builder import TableBuilder

_TAB = r"\t"  # as it is typed
_LARGEST_AUTO = 1 << 16  # bytes of a page, for the longest field, where pages are chosen later


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``morphogen table build``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="CSV, TSV or JSON Lines in UTF-8, also gzip or Zstandard; Parquet, Arrow or Feather; "
        "SQLite; - for the standard input",
    )
    parser.add_argument("--key", required=True, metavar="COLUMN", help="column of the keys")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="TABLE",
        help="file to write; - for the standard output",
    )
    parser.add_argument(
        "--value",
        metavar="COLUMN",
        help="column of the values (default: the whole row, as a JSON object)",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="of the file (default: as it begins, or as its name ends)",
    )
    parser.add_argument(
        "--delimiter",
        metavar="CHARACTER",
        help="between columns (default: a comma, or a tab in a TSV file)",
    )
    parser.add_argument(
        "--columns",
        metavar="NAMES",
        help="of a CSV file without a heading, with commas between",
    )
    parser.add_argument(
        "--sql-table", metavar="NAME", help="of an SQLite database (default: its only one)"
    )
    parser.add_argument("--query", metavar="SQL", help="that gives the rows of an SQLite database")
    parser.add_argument(
        "--duplicates",
        choices=("error", "first", "last"),
        default="error",
        help="what a key that comes again does: it is refused, or the first or last value counts "
        "(default: error)",
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
    from morphogen.keyword.builder import TableBuilder
    from morphogen.keyword.file import send_table

    taken = takes_output(args.json, {"-o": args.output})
    if not taken:
        check_output_file(args.output, args.file, force=args.force)
    options = _row_options(args)
    builder = TableBuilder(
        page_size=args.page_size,
        value_size=args.value_size,
        proof_levels=args.proof_levels,
        duplicates=args.duplicates,
    )
    places = _read(args.file, options, builder, progress)
    try:
        if taken:
            built = builder.build(progress)
        else:
            written = builder.write(args.output, progress)
    except TableBuildError as error:
        raise _with_place(error, places) from None
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


def _read(
    path: Path, options: RowOptions, builder: TableBuilder, progress: StagedProgress
) -> Places:
    from morphogen.cli.rows.kinds import open_rows

    reading = stage(progress, "reading")
    with open_rows(input_file(path, once=True), options, reading) as rows:
        for keys, values in rows.batches:
            try:
                builder.add_many(keys, values)
            except TableBuildError as error:
                raise _with_place(error, rows.places) from None
    return rows.places


def _with_place(error: TableBuildError, places: Places) -> TableBuildError:
    """The same, with the places of entries in the file instead of their numbers."""
    if not error.entries:
        return error
    *before, entry = error.entries
    where = places.of_entry(entry)
    if before:
        message = f"{where}: the key is that of {places.name(before[0])}"
    else:
        message = f"{where}: {str(error).removeprefix(f'entry {entry}: ')}"
    return TableBuildError(message, error.entries)


def _row_options(args: argparse.Namespace) -> RowOptions:
    from morphogen.checks import check_range
    from morphogen.keyword.layout import MAX_FRAGMENTS
    from morphogen.pages import MAX_PAGE_SIZE

    if args.page_size is not None:
        check_range("--page-size", args.page_size, 1, MAX_PAGE_SIZE)
    delimiter = args.delimiter if args.delimiter != _TAB else "\t"
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"--delimiter must be one character, not {delimiter!r}")
    if args.sql_table is not None and args.query is not None:
        raise ValueError("give --sql-table or --query, not both")
    columns = tuple(args.columns.split(",")) if args.columns is not None else None
    if columns and len(set(columns)) < len(columns):
        raise ValueError(f"--columns has a name twice: {args.columns!r}")
    return RowOptions(
        key=args.key,
        value=args.value,
        format=args.format,
        delimiter=delimiter,
        columns=columns,
        sql_table=args.sql_table,
        query=args.query,
        most=MAX_FRAGMENTS * (args.page_size or _LARGEST_AUTO),
    )
