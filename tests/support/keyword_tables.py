"""Small keyword tables for tests, and lookups in them."""

from __future__ import annotations

from pathlib import Path

import keyword_format as fmt
import morphogen as mg
from morphogen.keyword import TableLayout
from morphogen.keyword.file import open_table
from naive import Bytes


def numbered(count: int, size: int = 0) -> list[tuple[bytes, bytes]]:
    """Return entries whose values have 0 to size bytes."""
    return [
        (f"key {i}".encode(), bytes((i + j) & 255 for j in range(i % (size + 1))))
        for i in range(count)
    ]


def plain(layout: TableLayout) -> fmt.Format:
    """Return the layout in the form of the independent implementation."""
    values = layout.as_dict()
    del values["version"]
    return fmt.Format(**values | {"seed": bytes.fromhex(values["seed"])})


def opened(path: Path, epoch: int = 0) -> tuple[mg.PageMatrix, TableLayout]:
    """Open the file of a keyword table, which is verified."""
    table = open_table(path, epoch)
    assert table.layout is not None
    return table.pages, table.layout


def read(layout: TableLayout, pages: Bytes, key: bytes) -> bytes | None:
    """Look a key up without servers."""
    return layout.find(key, pages[list(layout.candidates(key))])
