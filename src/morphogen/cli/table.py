"""``morphogen table build | info | verify | get``: keyword tables as files."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import morphogen.cli.table_read as table_read
from morphogen.cli.arguments import byte_size
from morphogen.cli.csv_rows import read_items
from morphogen.cli.lookup import add_lookup_options
from morphogen.cli.output import OK, PrintResult, print_help
from morphogen.cli.streams import input_file, takes_output, writing
from morphogen.progress import StagedProgress, stage

SUMMARY = "build a keyword table from a CSV file, or look into one"

Action = Callable[[argparse.Namespace, StagedProgress, PrintResult], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of the command, and their options.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of ``morphogen table``.
    """
    parser.set_defaults(action=lambda *_: print_help(parser))
    actions = parser.add_subparsers(metavar="action")

    def add(name: str, action: Action, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=parser.epilog,
            formatter_class=parser.formatter_class,
        )
        added.set_defaults(action=action)
        # Without a default, since the command before it has the same option.
        added.add_argument(
            "--json",
            action="store_true",
            default=argparse.SUPPRESS,
            help="print JSON instead of tables",
        )
        return added

    _add_build(
        add(
            "build",
            build,
            "build a keyword table from a CSV file whose first row names the columns",
        )
    )
    for name, action, text in (
        ("info", table_read.info, "print what the header of a table says, without its pages"),
        ("verify", table_read.verify, "read a whole table, and say whether a byte was altered"),
        ("get", table_read.get, "look keys up in a table on this machine, without servers"),
    ):
        below = add(name, action, text)
        below.add_argument(
            "table", type=Path, metavar="TABLE", help="a keyword table; - for the standard input"
        )
        if name == "get":
            below.add_argument("keys", nargs="*", metavar="KEY", help="to look up, as text")
            add_lookup_options(below, "the value")


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE.csv",
        help="UTF-8; every row has one key; - for the standard input",
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
        "--page-size", type=byte_size, default=4096, metavar="BYTES", help="default: 4k"
    )
    parser.add_argument("--delimiter", default=",", metavar="CHARACTER", help="default: a comma")
    parser.add_argument("--force", action="store_true", help="replace TABLE where it is there")


def run(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Run the action, or without one print the help."""
    code: int = args.action(args, progress, print_result)
    return code


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
        If the CSV file or an option is wrong, or the output is there already.
    TableBuildError
        If there is no table of these rows.
    """
    # Here, since the parser of every command loads this module.
    from morphogen.checks import check_range
    from morphogen.keyword import build_table
    from morphogen.keyword.file import send_table, write_table
    from morphogen.pages import MAX_PAGE_SIZE

    taken = takes_output(args.json, {"-o": args.output})
    if not taken:
        _check_output_file(args)
    check_range("--page-size", args.page_size, 1, MAX_PAGE_SIZE)
    if len(args.delimiter) != 1 or args.delimiter in '"\r\n':
        raise ValueError(f"--delimiter must be one character, not {args.delimiter!r}")
    working = stage(progress, "working")
    items = read_items(
        input_file(args.file, once=True),
        args.key,
        args.value,
        page_size=args.page_size,
        delimiter=args.delimiter,
        progress=working,
    )
    built = build_table(items, page_size=args.page_size, progress=working)
    if taken:
        with writing():
            send_table(sys.stdout.buffer, built.pages, built.layout, progress=working)
        return OK
    header = write_table(args.output, built.pages, built.layout, progress=working)
    data = table_read.facts(args.output, header, seed_tries=built.tries)
    print_result(data, lambda console: table_read.show_facts(data, console))
    return OK


def _check_output_file(args: argparse.Namespace) -> None:
    if args.output.resolve() == args.file.resolve():
        raise ValueError(f"{args.output} is the CSV file itself")
    if not args.force and os.path.lexists(args.output):
        raise ValueError(f"{args.output} is there already: --force replaces it")
    if not args.output.parent.is_dir():
        raise ValueError(f"{args.output}: there is no folder {args.output.parent}")
