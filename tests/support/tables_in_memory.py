"""Lookups in keyword tables that were just built, without servers."""

from __future__ import annotations

from collections.abc import Iterable

from keyword_tables import read
from morphogen.keyword import BuiltTable


def items_of(built: BuiltTable, keys: Iterable[bytes]) -> list[bytes | None]:
    """Look keys up."""
    return [read(built.layout, built.pages, key) for key in keys]
