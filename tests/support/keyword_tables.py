"""Small keyword tables for tests, and lookups in them."""

from __future__ import annotations

import keyword_format as fmt
from morphogen.keyword import TableLayout
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
    assert values.pop("version") == 1
    return fmt.Format(**values | {"seed": bytes.fromhex(values["seed"])})


def read(layout: TableLayout, pages: Bytes, key: bytes) -> bytes | None:
    """Look a key up without servers."""
    return layout.find(key, pages[list(layout.candidates(key))])
