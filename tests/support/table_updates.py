"""Updates of keyword tables that tests apply to the pages in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from keyword_tables import read
from morphogen.authentication import fill_siblings
from morphogen.authentication.shape import Shape
from morphogen.keyword import TableBuilder, TableLayout
from morphogen.keyword.file import OpenedTable
from morphogen.keyword.header import header_of
from morphogen.keyword.rows import Rows
from morphogen.keyword.update import TableUpdate, update_table
from morphogen.pages import PageMatrix
from naive import Bytes

Items = Mapping[bytes, bytes]


def rows_of(pairs: Iterable[tuple[bytes, bytes]]) -> Rows:
    """Return rows in native memory."""
    keys, values = zip(*pairs, strict=True) if (pairs := list(pairs)) else ((), ())
    rows = Rows()
    rows.add_many(keys, values)
    return rows


def opened_pages(pages: Bytes, layout: TableLayout) -> OpenedTable:
    """Return a table in memory as one that was opened."""
    if layout.version == 1:
        shape = Shape(layout.num_pages, layout.page_size, 0)
        return OpenedTable(
            PageMatrix(pages), layout, header_of(layout, shape, bytes(32), None), None
        )
    tree = fill_siblings(pages, layout.proof_levels, layout.authenticated_bytes())
    shape = Shape(layout.num_pages, layout.page_size, layout.proof_levels)
    header = header_of(layout, shape, bytes(32), tree.root)
    return OpenedTable(PageMatrix(pages), layout, header, tree)


def built(items: Items, *, fragments: int | None = None, **options: Any) -> OpenedTable:
    """Build a table in memory, the same one each time, with a place for more fragments if asked."""
    builder = TableBuilder(seed=b"a seed for tests", **options)
    builder.add_pairs(items.items())
    made = builder.build()
    layout = replace(made.layout, fragments=fragments or made.layout.fragments)
    return opened_pages(made.pages.copy(), layout)


def updated(old: OpenedTable, items: Items) -> OpenedTable:
    """Return the next table, which must be updated in place."""
    update = update_table(old, rows_of(items.items()))
    assert isinstance(update, TableUpdate), update
    return applied(old, update)


def applied(old: OpenedTable, update: TableUpdate) -> OpenedTable:
    """Return the table that an update makes."""
    pages = old.pages.body.copy()
    pages[update.indices, : update.layout.content_size] = update.contents
    return opened_pages(pages, update.layout)


def slots_of(table: OpenedTable) -> Bytes:
    """Return all slots: uint8 (num_pages, slots, slot_size)."""
    layout = table.layout
    assert layout is not None
    used = table.pages.body[:, : layout.slots_per_page * layout.slot_size]
    return np.ascontiguousarray(used).reshape(layout.num_pages, -1, layout.slot_size)


def find(table: OpenedTable, key: bytes) -> bytes | None:
    """Look a key up."""
    assert table.layout is not None
    return read(table.layout, table.pages.body, key)


def check_holds(table: OpenedTable, items: Items, misses: Iterable[bytes]) -> None:
    """Fail unless a table has exactly these keys with these values."""
    assert {key: find(table, key) for key in items} == dict(items)
    assert [key for key in misses if key not in items and find(table, key) is not None] == []
    layout = table.layout
    assert layout is not None
    used = slots_of(table)[:, :, 16:20].any(axis=2)
    assert used.sum() == layout.entries
    needed = (max(1, -(-len(value) // max(1, layout.value_size))) for value in items.values())
    assert layout.entries == sum(needed)
