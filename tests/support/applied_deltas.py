"""Two epochs of a table in files, the delta between them, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from morphogen.epochs.apply import apply_delta
from morphogen.epochs.delta import open_delta
from morphogen.epochs.diff import diff_tables
from morphogen.keyword.file import open_table
from naive import Bytes, random_pages
from sealed_files import layout_of, write_sealed


def changed(contents: Bytes, indices: list[int], seed: int = 1) -> Bytes:
    """The same contents but for some pages."""
    result = contents.copy()
    result[indices] = random_pages(len(contents), contents.shape[1], seed)[indices]
    return result


def apply_to_pages(old: Path, delta: Path) -> tuple[Bytes, Bytes, bytes]:
    """What a server has after a delta: pages, cap and root."""
    opened = open_table(old, 3)
    assert opened.tree is not None
    applied = apply_delta(opened.pages, opened.tree.cap, opened.tree.root, open_delta(delta))
    assert applied.pages.epoch == applied.header.to_epoch
    assert applied.pages.mapped
    return applied.pages.body, applied.changed.cap, applied.changed.root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a table of 19 pages in two epochs, old and new, with the delta between them."""
    contents = random_pages(19, 86)
    after = changed(contents, [0, 5, 6, 18])
    write_sealed(tmp_path / "old", contents, 2, layout_of(contents, 2, 30))
    write_sealed(tmp_path / "new", after, 2, layout_of(contents, 2, 31))
    diff_tables(tmp_path / "old", tmp_path / "new", tmp_path / "delta", 6, 7)
    return tmp_path
