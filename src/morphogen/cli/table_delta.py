"""``morphogen table diff | apply``: from one epoch's table to the next one's by what changes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from morphogen.cli.output import FAILED, OK, PrintResult
from morphogen.cli.show_delta import delta_facts, show_delta
from morphogen.cli.streams import (
    STANDARD,
    check_inputs,
    check_output_file,
    complain,
    input_file,
    output_file,
)
from morphogen.cli.table_read import facts, show_facts
from morphogen.progress import StagedProgress

if TYPE_CHECKING:
    from rich.console import Console


def add_diff_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``morphogen table diff``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument("old", type=Path, metavar="OLD", help="a table file with a root")
    parser.add_argument("new", type=Path, metavar="NEW", help="the next one, of the same shape")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DELTA", help="file to write"
    )
    add_epoch_options(parser)
    parser.add_argument("--force", action="store_true", help="replace DELTA where it is there")


def add_epoch_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say between which epochs a delta is.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument(
        "--epoch",
        type=int,
        metavar="N",
        help="version of NEW (default: the number at the end of its name)",
    )
    parser.add_argument(
        "--from-epoch",
        type=int,
        metavar="N",
        help="version of OLD (default: the number at the end of its name, or the one before NEW's)",
    )


def add_apply_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``morphogen table apply``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument(
        "old", type=Path, metavar="OLD", help="a table file with a root; - for the standard input"
    )
    parser.add_argument(
        "delta", type=Path, metavar="DELTA", help="what changes; - for the standard input"
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="NEW", help="table file to write"
    )
    parser.add_argument("--force", action="store_true", help="replace NEW where it is there")


def diff(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Write the delta between two tables, and print what it says.

    Returns
    -------
    int
        0; 1 if the delta is no smaller than the table.
    """
    from morphogen.epochs.diff import diff_tables
    from morphogen.epochs.names import epochs_between
    from morphogen.keyword.file import read_header

    _check_output("diff", args.output, (args.old, args.new), force=args.force)
    epochs = epochs_between(args.old, args.new, args.from_epoch, args.epoch)
    output = output_file(args.output, force=args.force)
    header = diff_tables(args.old, args.new, output, *epochs, progress)
    size = read_header(args.new).file_size
    smaller = header.file_size < size
    data = delta_facts(args.output, header, table_bytes=size, smaller=smaller)
    print_result(data, lambda console: show_delta(data, console))
    if smaller:
        return OK
    complain(
        f"{args.output} was written, but is no smaller than {args.new}, {header.file_size:,} bytes "
        f"against {size:,}: send the table"
    )
    return FAILED


def apply(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Write the table that a delta makes of another, and print what its header says."""
    from morphogen.epochs.apply import apply_to_table
    from morphogen.epochs.delta import read_delta_header

    _check_output("apply", args.output, (args.old, args.delta), force=args.force)
    check_inputs({"OLD": args.old, "DELTA": args.delta})
    old, delta = input_file(args.old), input_file(args.delta)
    header = read_delta_header(delta)
    written = apply_to_table(old, delta, output_file(args.output, force=args.force), progress)
    data = facts(
        args.output,
        written,
        from_epoch=header.from_epoch,
        to_epoch=header.to_epoch,
        pages_touched=header.count,
    )

    def show(console: Console) -> None:
        show_facts(data, console)
        console.print(
            f"Epoch {header.to_epoch}, of epoch {header.from_epoch} by {header.count:,} contents "
            "that change",
            soft_wrap=True,
        )

    print_result(data, show)
    return OK


def _check_output(action: str, output: Path, sources: tuple[Path, Path], *, force: bool) -> None:
    if output == STANDARD:
        raise ValueError(f"table {action} writes a file, not the standard output: give -o a name")
    for source in sources:
        check_output_file(output, source, force=force)
