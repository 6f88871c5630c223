"""``morphogen table update``: the next version of a keyword table, of other rows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import morphogen.cli.table_read as table_read
from morphogen.cli.arguments import byte_size
from morphogen.cli.output import FAILED, OK, PrintResult
from morphogen.cli.streams import STANDARD, check_output_file, complain, output_file
from morphogen.cli.table_delta import add_epoch_options
from morphogen.cli.table_rows import add_row_options, read_rows, row_options, with_place
from morphogen.errors import TableBuildError
from morphogen.progress import StagedProgress, stage

if TYPE_CHECKING:
    from rich.console import Console

    from morphogen.keyword.file import OpenedTable, TableHeader
    from morphogen.keyword.update import TableUpdate

_KEPT = ("page_size", "value_size", "proof_levels")  # options of a build that cannot be others
_COUNTS = (
    ("inserted", "entries that are new"),
    ("changed", "entries of another value"),
    ("deleted", "entries that are gone"),
    ("moved", "moves of others"),
    ("pages_touched", "pages touched"),
    ("delta_bytes", "bytes of a delta"),
)


def add_update_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``morphogen table update``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument(
        "table", type=Path, metavar="OLD", help="the keyword table as it is; it stays so"
    )
    add_row_options(parser)
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="NEW", help="table file to write"
    )
    parser.add_argument(
        "--delta",
        type=Path,
        metavar="DELTA",
        help="file to write too: what morphogen table apply makes NEW of OLD with",
    )
    add_epoch_options(parser)
    for name in _KEPT:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int if name == "proof_levels" else byte_size,
            metavar="N" if name == "proof_levels" else "BYTES",
            help="that of OLD, which stays: refused if it is another",
        )
    parser.add_argument(
        "--force", action="store_true", help="replace NEW and DELTA where they are there"
    )


def update(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Write the next version of a table, and print what has changed.

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
        0; 1 if there is no delta, although one was asked for.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    ValueError
        If a file or an option is wrong, or an output is there already.
    TableBuildError
        If there is no table of these rows.
    """
    from morphogen.keyword.file import open_table
    from morphogen.keyword.layout import MAX_FRAGMENTS
    from morphogen.keyword.rows import Rows
    from morphogen.keyword.update import (
        NoUpdate,
        RebuiltTable,
        rebuild_table,
        update_table,
        write_update,
    )

    if STANDARD in (args.table, args.output, args.delta):
        raise ValueError(
            "table update takes names of files for OLD, NEW and DELTA, no standard stream"
        )
    # Whether the options go with the table is told before all of it is read.
    header = _checked_header(args)
    epochs = _wanted_epochs(args)
    options = row_options(args, MAX_FRAGMENTS * header.page_size)
    rows = Rows()
    places = read_rows(args.file, options, rows.add_many, progress)
    output = output_file(args.output, force=args.force)
    old = open_table(args.table, progress=stage(progress, "verifying"))
    if old.header != header:
        raise ValueError(f"{args.table} was replaced by another while it was updated")
    try:
        found = update_table(old, rows, args.duplicates, progress)
        rebuilt: RebuiltTable | None = None
        if isinstance(found, NoUpdate):
            rebuilt = rebuild_table(output, old, rows, args.duplicates, progress)
    except TableBuildError as error:
        raise with_place(error, places) from None
    data: dict[str, Any] = {"rows": len(places), "rebuilt": rebuilt is not None, "reason": None}
    if isinstance(found, NoUpdate):
        assert rebuilt is not None
        new, change = rebuilt.header, None
        data |= {"reason": found.reason, "seed_tries": rebuilt.tries}
    else:
        new, change = write_update(output, old, found, progress), found
    size = _delta_size(header, new, change)
    code, written = OK, False
    if epochs is not None:
        written = _no_delta(new, size) is None
        if written:
            _write_delta(args, epochs, old, new, change, progress)
        else:
            code = FAILED
    data |= _counts(change, size) | {"delta": str(args.delta) if written else None}
    no_delta = _no_delta(new, size)
    data["advice"] = "; ".join(filter(None, (_other_lookups(header, new), no_delta))) or None
    data = table_read.facts(args.output, new, **data)
    print_result(data, lambda console: _show(data, console))
    if code == FAILED:
        complain(f"{args.delta} was not written: {no_delta}")
    return code


def _checked_header(args: argparse.Namespace) -> TableHeader:
    """The header of the table, which can be updated and has what the options say."""
    from morphogen.keyword.file import read_header

    for output in (args.output, args.delta):
        if output is not None:
            check_output_file(output, args.table, force=args.force)
            check_output_file(output, args.file, force=args.force)
    if args.delta is not None and args.delta.resolve() == args.output.resolve():
        raise ValueError(f"--delta must be another file than -o, not {args.delta}")
    header = read_header(args.table)
    layout = header.layout
    if layout is None:
        raise ValueError(f"{args.table} has no keys: only a keyword table can be updated")
    if header.root is None:
        raise table_read.without_root(args.table)
    for name in _KEPT:
        given, has = getattr(args, name), getattr(layout, name)
        if given is not None and given != has:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} must be that of {args.table}, {has}, not {given}")
    return header


def _wanted_epochs(args: argparse.Namespace) -> tuple[int, int] | None:
    """Between which epochs a delta is to be, if one is."""
    from morphogen.epochs.names import epochs_between

    if args.delta is not None:
        return epochs_between(args.table, args.output, args.from_epoch, args.epoch)
    for option in ("epoch", "from_epoch"):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option.replace('_', '-')} is that of --delta: give both")
    return None


def _delta_size(old: TableHeader, new: TableHeader, change: TableUpdate | None) -> int | None:
    """Bytes of the delta between both; None if their shapes differ, so that there is none."""
    from morphogen.epochs.delta import DeltaHeader

    if _shape(old) != _shape(new):
        return None
    # Of a table that was built anew nearly every page is another.
    count = new.num_pages if change is None else len(change.indices)
    none = bytes(32)
    return DeltaHeader(0, 1, *_shape(new), count, none, none, new.layout, none).file_size


def _shape(header: TableHeader) -> tuple[int, int, int]:
    return header.num_pages, header.page_size, header.proof_levels


def _write_delta(
    args: argparse.Namespace,
    epochs: tuple[int, int],
    old: OpenedTable,
    new: TableHeader,
    change: TableUpdate | None,
    progress: StagedProgress,
) -> None:
    from morphogen.epochs.delta import write_delta
    from morphogen.epochs.diff import diff_tables

    delta = output_file(args.delta, force=args.force)
    if change is None:
        diff_tables(args.table, args.output, delta, *epochs, progress)
        return
    assert old.header.root is not None
    assert new.root is not None
    write_delta(
        delta,
        from_epoch=epochs[0],
        to_epoch=epochs[1],
        num_pages=new.num_pages,
        page_size=new.page_size,
        proof_levels=new.proof_levels,
        root_before=old.header.root,
        root_after=new.root,
        layout=new.layout,
        indices=change.indices,
        contents=change.contents,
        progress=stage(progress, "writing"),
    )


def _counts(change: TableUpdate | None, size: int | None) -> dict[str, Any]:
    counts: dict[str, Any] = dict.fromkeys((name for name, _ in _COUNTS), None)
    if change is not None:
        counts |= {name: getattr(change, name) for name, _ in _COUNTS[:4]}
        counts["pages_touched"] = len(change.indices)
    return counts | {"delta_bytes": size}


def _no_delta(new: TableHeader, size: int | None) -> str | None:
    """Why there is no delta that is worth its while."""
    if size is None:
        return "the tables differ in shape, so that no delta leads from one to the other"
    if size >= new.file_size:
        return (
            f"a delta would take {size:,} bytes, no fewer than the table, {new.file_size:,}: "
            "send the table"
        )
    return None


def _other_lookups(old: TableHeader, new: TableHeader) -> str | None:
    """What operators are to know of a table whose values may take more slots."""
    from morphogen.keyword.layout import CANDIDATES

    assert old.layout is not None
    assert new.layout is not None
    before, after = CANDIDATES * old.layout.fragments, CANDIDATES * new.layout.fragments
    if before == after:
        return None
    return f"a lookup asks for {after} pages, not {before}, and takes so much longer"


def _show(data: dict[str, Any], console: Console) -> None:
    from rich import box
    from rich.table import Table

    from morphogen.cli.tables import print_table

    table_read.show_facts(data, console)
    rows = Table(box=box.SIMPLE_HEAD, show_header=False)
    rows.add_column()
    rows.add_column(justify="right")
    for name, text in _COUNTS:
        if data[name] is not None:
            rows.add_row(text, f"{data[name]:,}")
    print_table(rows, console)
    if data["rebuilt"]:
        console.print(f"Built anew: {data['reason']}", soft_wrap=True)
    for name, text in (("delta", "Delta  "), ("advice", "")):
        if data[name]:
            console.print(f"{text}{data[name]}", soft_wrap=True)
