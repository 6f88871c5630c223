"""Table files of version 2 of given contents, written by the independent formats of the tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keyword_format as fmt
from morphogen.keyword import TableLayout
from naive import Bytes

SEED = bytes(range(0x11, 0x21))


def write_sealed(
    path: Path, contents: Bytes, proof_levels: int, layout: TableLayout | None = None
) -> Path:
    """Write a table file, of a keyword table where a layout is given, whatever its pages hold."""
    table = None
    if layout is not None:
        table = fmt.Format(
            layout.num_pages,
            layout.page_size,
            layout.slots_per_page,
            layout.value_size,
            layout.seed,
            layout.entries,
            fragments=layout.fragments,
            proof_levels=proof_levels,
        )
    path.write_bytes(fmt.sealed_file(table, [row.tobytes() for row in contents], proof_levels))
    return path


def layout_of(contents: Bytes, proof_levels: int, entries: int) -> TableLayout:
    """Return a layout that such contents may have."""
    layout = TableLayout(
        len(contents),
        contents.shape[1] + 32 * proof_levels,
        contents.shape[1] // 25,
        5,
        SEED,
        1,
        fragments=2,
        proof_levels=proof_levels,
    )
    return replace(layout, entries=entries)
