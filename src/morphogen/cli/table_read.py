"""``morphogen table info | verify | get``: look into a keyword table on this machine."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.cli.lookup import check_destination, print_values, read_keys
from morphogen.cli.output import FAILED, OK, PrintResult
from morphogen.cli.show_delta import delta_facts, show_delta
from morphogen.cli.show_manifest import print_manifest
from morphogen.cli.streams import check_inputs, input_file
from morphogen.progress import StagedProgress, stage

if TYPE_CHECKING:
    from rich.console import Console

    from morphogen.keyword.file import TableHeader

# The facts of a table, with the words for people.
_ROWS = (
    ("entries", "entries", "{:,}"),
    ("pages", "pages", "{:,}"),
    ("page_size", "bytes a page", "{:,}"),
    ("slots_per_page", "slots a page", "{:,}"),
    ("load", "load", "{:.1%}"),
    ("largest_value", "values up to", "{:,} bytes"),
    ("fragments", "slots a value, at most", "{:,}"),
    ("proof_levels", "proof levels", "{:,}"),
    ("cap_bytes", "cap", "{:,} bytes"),
    ("bytes", "file", "{:,} bytes"),
    ("seed_tries", "seeds tried", "{}"),
)


def without_root(path: Path) -> ValueError:
    """The error of a table of version 1 where a root is needed."""
    return ValueError(
        f"{os.fspath(path)} is a table of version 1, which has no root: morphogen table seal makes "
        "one that has"
    )


def facts(path: Path, header: TableHeader, **more: Any) -> dict[str, Any]:
    """Tell what the header of a table says.

    Parameters
    ----------
    path : pathlib.Path
    header : TableHeader
    **more
        Other facts of it.

    Returns
    -------
    dict
        For programs.
    """
    from morphogen.authentication.hashing import HASH_BYTES

    data: dict[str, Any] = {"table": os.fspath(path), "version": header.version}
    layout = header.layout
    if layout is not None:
        data |= {
            "entries": layout.entries,
            "slots_per_page": layout.slots_per_page,
            "load": layout.load,
            "largest_value": layout.max_value_size,
        }
    data |= {"pages": header.num_pages, "page_size": header.page_size, "bytes": header.file_size}
    if header.root is not None:
        data |= {"proof_levels": header.proof_levels, "cap_bytes": HASH_BYTES * header.cap_nodes}
        data |= {} if layout is None else {"fragments": layout.fragments}
        data["root"] = header.root.hex()
    return data | more | {"sha256": header.digest.hex()}


def show_facts(data: dict[str, Any], console: Console) -> None:
    """Show the facts of a table to people.

    Parameters
    ----------
    data : dict
        As `facts` gives them.
    console : rich.console.Console
    """
    from rich import box
    from rich.table import Table

    from morphogen.cli.tables import print_table

    console.print(f"Table  {data['table']}", soft_wrap=True)
    if "root" in data:
        console.print(f"Root  {data['root']}", soft_wrap=True)
    console.print(f"SHA-256 of its pages  {data['sha256']}", soft_wrap=True)
    rows = Table(box=box.SIMPLE_HEAD, show_header=False)
    rows.add_column()
    rows.add_column(justify="right")
    for field, name, form in _ROWS:
        if field in data:
            rows.add_row(name, form.format(data[field]))
    print_table(rows, console)


def info(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Print what the header of a table or a delta, or a manifest, says, without reading pages."""
    from morphogen.epochs.delta import is_delta, read_delta_header
    from morphogen.epochs.manifest import is_manifest, read_manifest
    from morphogen.keyword.file import read_header

    table = input_file(args.table)
    if is_manifest(table):
        print_manifest(table, read_manifest(table), print_result)
        return OK
    if is_delta(table):
        found = delta_facts(table, read_delta_header(table))
        print_result(found, lambda console: show_delta(found, console))
        return OK
    data = facts(table, read_header(table))
    print_result(data, lambda console: show_facts(data, console))
    return OK


def verify(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Read a whole table, and print whether it is as it was written."""
    from morphogen.errors import TableFileError
    from morphogen.keyword.file import check_digest, open_table

    table = input_file(args.table)
    try:
        opened = open_table(table, progress=stage(progress, "verifying"))
        if opened.tree is not None and not check_digest(opened, stage(progress, "hashing")):
            raise TableFileError(f"{table} has a header with another SHA-256 than its pages'")
        data = facts(table, opened.header) | {"verified": True}
    except TableFileError as error:
        reason = str(error)
        data = {"table": os.fspath(table), "verified": False, "reason": reason}
        print_result(data, lambda console: console.print(reason, style="red", soft_wrap=True))
        return FAILED

    def show(console: Console) -> None:
        show_facts(data, console)
        console.print("Verified: no byte was altered", style="green")

    print_result(data, show)
    return OK


def get(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Look keys up in a table's file. Nobody else learns which, since nobody is asked."""
    from morphogen.keyword.file import open_table

    check_destination(args)
    check_inputs({"TABLE": args.table, "--lookup-file": args.lookup_file})
    keys = read_keys(args, args.keys)
    if not keys:
        raise ValueError("table get takes keys, or --lookup-file with at least one")
    table = input_file(args.table)
    opened = open_table(table, verify=False)
    layout, body = opened.layout, opened.pages.body
    if layout is None:
        raise ValueError(f"{table} has pages without keys: morphogen get reads them by number")
    found = [layout.find(key, body[list(layout.candidates(key))]) for key in keys]
    return print_values(keys, found, {"table": os.fspath(table)}, args.output, print_result)
