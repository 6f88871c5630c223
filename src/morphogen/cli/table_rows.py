"""The rows of a keyword table, as ``morphogen table build | update`` read them from a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from morphogen.cli.rows.options import FORMATS, RowOptions
from morphogen.cli.streams import input_file
from morphogen.errors import TableBuildError
from morphogen.progress import StagedProgress, stage

if TYPE_CHECKING:
    from morphogen.cli.rows.places import Places

_TAB = r"\t"  # as it is typed

AddRows = Callable[[Sequence[bytes | str], Sequence[bytes | str]], None]


def add_row_options(parser: argparse.ArgumentParser) -> None:
    """Declare the file of rows, and the options that say how it is read.

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


def row_options(args: argparse.Namespace, most: int) -> RowOptions:
    """Check the options of `add_row_options`.

    Parameters
    ----------
    args : argparse.Namespace
    most : int
        Bytes of the largest value that a table could hold.

    Returns
    -------
    RowOptions

    Raises
    ------
    ValueError
        If one is wrong.
    """
    delimiter = args.delimiter if args.delimiter != _TAB else "\t"
    if delimiter is not None and len(delimiter) != 1:
        raise ValueError(f"--delimiter must be one character, not {delimiter!r}")
    if delimiter is not None and delimiter in '"\r\n':
        raise ValueError(f"--delimiter must be no quote and no end of line, not {delimiter!r}")
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
        most=most,
    )


def read_rows(path: Path, options: RowOptions, add: AddRows, progress: StagedProgress) -> Places:
    """Read all rows of a file.

    Parameters
    ----------
    path : pathlib.Path
        ``-`` for the standard input.
    options : RowOptions
    add : callable
        Takes keys and their values, some at a time.
    progress : callable
        Called with the work done, the work in all, and "reading".

    Returns
    -------
    Places
        Where each row stands in the file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not of its kind. The message names the line or row.
    """
    from morphogen.cli.rows.kinds import open_rows

    reading = stage(progress, "reading")
    with open_rows(input_file(path, once=True), options, reading) as rows:
        for keys, values in rows.batches:
            try:
                add(keys, values)
            except TableBuildError as error:
                raise with_place(error, rows.places) from None
    return rows.places


def with_place(error: TableBuildError, places: Places) -> TableBuildError:
    """The same, with the places of entries in the file instead of their numbers.

    Parameters
    ----------
    error : TableBuildError
    places : Places

    Returns
    -------
    TableBuildError
    """
    if not error.entries:
        return error
    *before, entry = error.entries
    where = places.of_entry(entry)
    if before:
        message = f"{where}: the key is that of {places.name(before[0])}"
    else:
        message = f"{where}: {str(error).removeprefix(f'entry {entry}: ')}"
    return TableBuildError(message, error.entries)
