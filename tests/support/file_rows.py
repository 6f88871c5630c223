"""Entries of files of rows, read as ``morphogen table build`` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from morphogen.cli.rows.kinds import open_rows
from morphogen.cli.rows.options import RowOptions

Item = tuple[bytes, bytes]


def read_rows(
    path: Path, key: str = "key", value: str | None = "value", **options: Any
) -> list[Item]:
    """All entries of a file, as the bytes that a table would hold."""
    return [item for item, _ in read_placed(path, key, value, **options)]


def read_placed(
    path: Path, key: str = "key", value: str | None = "value", **options: Any
) -> list[tuple[Item, str]]:
    """The same, with the place of each."""
    items: list[Item] = []
    calls: list[tuple[int, int]] = []
    chosen = RowOptions(key, value, **options)
    with open_rows(path, chosen, lambda *call: calls.append(call)) as rows:
        for keys, values in rows.batches:
            assert len(keys) == len(values)
            items += zip(map(as_bytes, keys), map(as_bytes, values), strict=True)
    assert all(0 <= done <= total for done, total in calls)
    assert len(rows.places) == len(items)
    return [(item, rows.places.of_entry(entry)) for entry, item in enumerate(items, start=1)]


def as_bytes(text: bytes | str) -> bytes:
    """Text as a table holds it."""
    return text.encode() if isinstance(text, str) else text
