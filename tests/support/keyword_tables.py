"""Small keyword tables for tests, and lookups in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keyword_format as fmt
import morphogen as mg
from morphogen.keyword import TableLayout, build
from morphogen.keyword.file import open_table
from naive import Bytes


def numbered(count: int, size: int = 0) -> list[tuple[bytes, bytes]]:
    """Return entries whose values have 0 to size bytes."""
    return [
        (f"key {i}".encode(), bytes((i + j) & 255 for j in range(i % (size + 1))))
        for i in range(count)
    ]


def build_version_1(
    items: Iterable[tuple[bytes, bytes]], **options: Any
) -> tuple[Bytes, TableLayout]:
    """Build a table of version 1: slots for the largest value, and no proofs."""
    pairs = list(items)
    largest = max(len(value) for _, value in pairs)
    pages, layout = build(pairs, value_size=largest, proof_levels=0, **options)
    return pages, replace(layout, version=1)


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
