"""Today's code reads and writes the keyword table that was recorded when the format was made."""

from __future__ import annotations

from pathlib import Path

from keyword_tables import build_version_1, opened, read
from morphogen.keyword import TableLayout
from morphogen.keyword.file import write_table

RECORDED = Path(__file__).resolve().parents[1] / "vectors" / "keyword_v1.table"
SEED = bytes(range(16))
ITEMS = [(f"key {i}".encode(), f"value {i}".encode()[: i % 9]) for i in range(24)]


def test_the_recorded_table_is_built_and_written(tmp_path: Path) -> None:
    write_table(tmp_path / "table", *build_version_1(ITEMS, page_size=96, seed=SEED))
    assert (tmp_path / "table").read_bytes() == RECORDED.read_bytes()


def test_the_recorded_table_is_read() -> None:
    pages, layout = opened(RECORDED)
    assert layout == TableLayout(9, 96, 3, 8, SEED, 24, version=1)
    for key, value in ITEMS:
        assert read(layout, pages.body, key) == value
    assert read(layout, pages.body, b"key 24") is None
