"""What the header of a delta says, for people and for programs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from morphogen.epochs.delta import DeltaHeader

# The facts of a delta, with the words for people.
_ROWS = (
    ("from_epoch", "from epoch", "{}"),
    ("to_epoch", "to epoch", "{}"),
    ("pages", "pages", "{:,}"),
    ("page_size", "bytes a page", "{:,}"),
    ("proof_levels", "proof levels", "{:,}"),
    ("entries", "entries after", "{:,}"),
    ("pages_touched", "contents that change", "{:,}"),
    ("bytes", "delta", "{:,} bytes"),
    ("table_bytes", "table", "{:,} bytes"),
)


def delta_facts(path: Path, header: DeltaHeader, **more: Any) -> dict[str, Any]:
    """Tell what the header of a delta says.

    Parameters
    ----------
    path : pathlib.Path
    header : DeltaHeader
    **more
        Other facts of it.

    Returns
    -------
    dict
        For programs.
    """
    data: dict[str, Any] = {
        "delta": os.fspath(path),
        "from_epoch": header.from_epoch,
        "to_epoch": header.to_epoch,
        "pages": header.num_pages,
        "page_size": header.page_size,
        "proof_levels": header.proof_levels,
    }
    data |= {} if header.layout is None else {"entries": header.layout.entries}
    return (
        data
        | {"pages_touched": header.count, "bytes": header.file_size}
        | more
        | {"root_before": header.root_before.hex(), "root_after": header.root_after.hex()}
    )


def show_delta(data: dict[str, Any], console: Console) -> None:
    """Show the facts of a delta to people.

    Parameters
    ----------
    data : dict
        As `delta_facts` gives them.
    console : rich.console.Console
    """
    from rich import box
    from rich.table import Table

    from morphogen.cli.tables import print_table

    for name, text in (("delta", "Delta"), ("root_before", "From root"), ("root_after", "To root")):
        console.print(f"{text}  {data[name]}", soft_wrap=True)
    rows = Table(box=box.SIMPLE_HEAD, show_header=False)
    rows.add_column()
    rows.add_column(justify="right")
    for name, text, form in _ROWS:
        if name in data:
            rows.add_row(text, form.format(data[name]))
    print_table(rows, console)
