"""``morphogen table ACTION``: tables as files, and their manifests."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import morphogen.cli.table_delta as table_delta
import morphogen.cli.table_read as table_read
import morphogen.cli.table_seal as table_seal
import morphogen.cli.table_sign as table_sign
import morphogen.cli.table_update as table_update
from morphogen.cli.lookup import add_lookup_options
from morphogen.cli.output import PrintResult, print_help
from morphogen.cli.table_build import add_build_options, build
from morphogen.progress import StagedProgress

SUMMARY = "build a keyword table from a file of rows, or look into one"

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

    add_build_options(
        add(
            "build",
            build,
            "build a keyword table from a file: CSV, JSON, Parquet, Arrow or SQLite",
        )
    )
    table_update.add_update_options(
        add(
            "update",
            table_update.update,
            "write a keyword table's next version, of which few pages change, from other rows",
        )
    )
    table_seal.add_seal_arguments(
        add("seal", table_seal.seal, "write a file as pages that prove themselves to clients")
    )
    table_delta.add_diff_options(
        add(
            "diff",
            table_delta.diff,
            "write the delta that makes one table the next; exit code 1 if it is no smaller",
        )
    )
    table_delta.add_apply_options(
        add("apply", table_delta.apply, "write the table that a delta makes of another")
    )
    for name, action, text in (
        (
            "info",
            table_read.info,
            "print what the header of a table or a delta, or a manifest, says",
        ),
        ("verify", table_read.verify, "read a whole table, and say whether a byte was altered"),
        ("get", table_read.get, "look keys up in a table on this machine, without servers"),
        ("root", table_seal.root, "print the root of a table, which clients pin with --root"),
    ):
        below = add(name, action, text)
        below.add_argument(
            "table", type=Path, metavar="TABLE", help="a table file; - for the standard input"
        )
        if name == "get":
            below.add_argument("keys", nargs="*", metavar="KEY", help="to look up, as text")
            add_lookup_options(below, "the value")
    table_sign.add_keygen_options(
        add("keygen", table_sign.keygen, "make the key by which a table's owner signs manifests")
    )
    table_sign.add_sign_options(
        add("sign", table_sign.sign, "write a manifest: the owner's word for a table's root")
    )


def run(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Run the action, or without one print the help."""
    code: int = args.action(args, progress, print_result)
    return code
