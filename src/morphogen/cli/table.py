"""``morphogen table build``: a keyword table from a CSV file."""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from morphogen.cli.output import OK, PrintResult
from morphogen.progress import Progress, StagedProgress, stage

if TYPE_CHECKING:
    from rich.console import Console

    from morphogen.keyword import BuiltTable

SUMMARY = "build a keyword table from a CSV file"

_STEP = 1 << 12  # rows between two calls of progress
_MAX_FIELD = 1 << 17  # characters; Python's own limit too


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
    items = _read_items(args, working)
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
    console.print(rows)


def _read_items(args: argparse.Namespace, progress: Progress) -> list[tuple[bytes, bytes]]:
    path: Path = args.file
    with path.open(encoding="utf-8-sig", newline="") as file, _field_limit(args.page_size):
        reader = csv.reader(file, delimiter=args.delimiter, strict=True)
        try:
            return _collect(reader, args, lambda: _report(file, progress))
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not UTF-8 after line {reader.line_num}") from None
        except csv.Error as error:
            raise ValueError(f"{path}:{reader.line_num}: {error}") from None


def _report(file: TextIO, progress: Progress) -> None:
    if file.seekable():  # a pipe has no size
        progress(file.buffer.tell(), os.fstat(file.fileno()).st_size)


@contextmanager
def _field_limit(page_size: int) -> Iterator[None]:
    """Let a field be as large as a page: Python's limit is one for the process."""
    before = csv.field_size_limit(min(max(_MAX_FIELD, page_size), 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _collect(
    reader: Any, args: argparse.Namespace, report: Callable[[], None]
) -> list[tuple[bytes, bytes]]:
    from morphogen.keyword.layout import HEAD_BYTES

    path: Path = args.file
    heading: list[str] = next(reader, [])
    if not heading:
        raise ValueError(f"{path}: the first line must name the columns, and is empty")
    key_at = _column(path, heading, "--key", args.key)
    value_at = None if args.value is None else _column(path, heading, "--value", args.value)
    if value_at is None and len(set(heading)) < len(heading):
        raise ValueError(f"{path}:1: two columns have one name, and a row becomes a JSON object")
    seen: dict[bytes, int] = {}
    items: list[tuple[bytes, bytes]] = []
    line = reader.line_num + 1
    for row in reader:
        # An entry of several lines is named by its first, and empty lines are none.
        if row:
            if len(row) != len(heading):
                raise ValueError(
                    f"{path}:{line}: the row has {len(row)} fields, the heading {len(heading)}"
                )
            key = row[key_at].encode()
            first = seen.setdefault(key, line)
            if first != line:
                raise ValueError(f"{path}:{line}: the key is that of line {first}")
            value = (_row_as_json(heading, row) if value_at is None else row[value_at]).encode()
            if HEAD_BYTES + len(value) > args.page_size:
                raise ValueError(
                    f"{path}:{line}: a value of {len(value)} bytes takes {HEAD_BYTES + len(value)} "
                    f"in the table, more than a page of {args.page_size} bytes has room for"
                )
            items.append((key, value))
            if len(items) % _STEP == 0:
                report()
        line = reader.line_num + 1
    if not items:
        raise ValueError(f"{path}: no row follows the heading")
    return items


def _column(path: Path, heading: Sequence[str], option: str, name: str) -> int:
    count = heading.count(name)
    if count == 1:
        return heading.index(name)
    if count:
        raise ValueError(f"{path}:1: {count} columns have the name {name!r} that {option} gives")
    # Their names are left out: if the heading was forgotten, they are somebody's keys.
    hint = " (--delimiter says what stands between columns)" if len(heading) == 1 else ""
    raise ValueError(
        f"{path}:1: {option}: none of the {len(heading)} columns is named {name!r}{hint}"
    )


def _row_as_json(heading: Sequence[str], row: Sequence[str]) -> str:
    fields = dict(zip(heading, row, strict=True))
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
