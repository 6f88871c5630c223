"""The pages of a table file: a matrix after an offset, and a private lookup over it."""

from __future__ import annotations

from pathlib import Path

import pytest

import morphogen as mg
from keyword_tables import numbered, opened
from morphogen.keyword import build
from morphogen.keyword.file import (
    write_table,
)

# The matrix behind it


def test_pages_after_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"header!" + bytes(range(25)))
    pages = mg.PageMatrix.open(path, 10, offset=7)
    assert (pages.num_pages, pages.page_size) == (3, 10)
    assert bytes(pages[0]) == bytes(range(10))
    assert bytes(pages[2]) == bytes(range(20, 25)) + bytes(5)
    assert pages.body.shape == (2, 10)


def test_offsets_that_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    assert mg.PageMatrix.open(path, 10, offset=9).num_pages == 1
    for offset in (10, 11, 2**70):
        with pytest.raises(ValueError, match=f"one byte after offset {offset}: {path} has 10"):
            mg.PageMatrix.open(path, offset=offset)
    with pytest.raises(ValueError, match="offset must be 0 or more, not -1"):
        mg.PageMatrix.open(path, offset=-1)
    with pytest.raises(TypeError, match="offset must be an int, not float"):
        mg.PageMatrix.open(path, offset=1.0)  # type: ignore[arg-type]


# From a file to a private lookup


def test_a_private_lookup_through_two_engines(tmp_path: Path) -> None:
    items = numbered(3000, 12)
    write_table(tmp_path / "table", *build(items, page_size=256))
    wanted = [*items[::150], *((b"absent %d" % i, None) for i in range(20)), (b"", None)]
    tables = [opened(tmp_path / "table", epoch=3) for _ in range(2)]
    layout = tables[0][1]
    with (
        mg.open_engine(tables[0][0], "cpu") as one,
        mg.open_engine(tables[1][0], "cpu") as other,
    ):
        for key, value in wanted:
            query0, query1 = mg.make_query(layout.candidates(key), layout.num_pages)
            # Three keys of one size, whether it is there or not.
            assert [len(query.keys) for query in (query0, query1)] == [3, 3]
            pages = mg.reconstruct(one.answer([query0]), other.answer([query1]))
            assert layout.find(key, pages[0]) == value


def test_a_private_lookup_where_all_candidates_coincide(tmp_path: Path) -> None:
    write_table(tmp_path / "table", *build(numbered(5, 4)))
    pages, layout = opened(tmp_path / "table")
    assert layout.num_pages == 1
    with mg.open_engine(pages, "cpu") as engine:
        for key, value in [*numbered(5, 4), (b"absent", None)]:
            queries = mg.make_query(layout.candidates(key), 1)
            assert [len(query.keys) for query in queries] == [3, 3]
            answers = [engine.answer([query]) for query in queries]
            assert layout.find(key, mg.reconstruct(*answers)[0]) == value
