"""``morphogen table seal | root``: make pages prove themselves, and print what stands for them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from morphogen.cli.arguments import byte_size
from morphogen.cli.output import OK, PrintResult
from morphogen.cli.streams import STANDARD, check_output_file, input_file, output_file
from morphogen.cli.table_read import facts, show_facts, without_root
from morphogen.progress import StagedProgress, stage

if TYPE_CHECKING:
    from rich.console import Console


def add_seal_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``morphogen table seal``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="any file, or a keyword table of version 1; - for the standard input",
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="TABLE", help="file to write"
    )
    parser.add_argument(
        "--page-size", type=byte_size, metavar="BYTES", help="default: 4k, or the table's own"
    )
    parser.add_argument(
        "--proof-levels",
        type=int,
        metavar="LEVELS",
        help="hashes of 32 bytes in each page: the more, the less a client takes once; "
        "0 keeps pages as they are (default: as many as make that 16 MiB at most)",
    )
    parser.add_argument("--force", action="store_true", help="replace TABLE where it is there")


def seal(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Write a file's pages so that they prove themselves, and print their root."""
    from morphogen.keyword.sealing import seal_file

    if args.output == STANDARD:
        raise ValueError("table seal writes a file, not the standard output: give -o a name")
    check_output_file(args.output, args.file, force=args.force)
    header = seal_file(
        input_file(args.file),
        output_file(args.output, force=args.force),
        args.page_size,
        args.proof_levels,
        stage(progress, "sealing"),
    )
    data = facts(args.output, header)
    print_result(data, lambda console: show_facts(data, console))
    return OK


def root(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Print the root of a table or a manifest, which a client pins."""
    from morphogen.epochs.manifest import is_manifest, read_manifest
    from morphogen.keyword.file import read_header

    table = input_file(args.table)
    found = read_manifest(table).root if is_manifest(table) else read_header(table).root
    if found is None:
        raise without_root(table)

    def show(console: Console) -> None:
        console.print(found.hex(), soft_wrap=True)

    print_result({"table": os.fspath(table), "root": found.hex()}, show)
    return OK
