"""Slices of a page matrix: some pages of a table, over the same memory or mapped alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import morphogen as mg
from naive import Bytes, random_pages

SIZE = 40
TABLE = random_pages(2000, SIZE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pages"
    path.write_bytes(b"header!" + TABLE.tobytes()[:-13])
    return path


def open_part(path: Path, **part: Any) -> mg.PageMatrix:
    return mg.PageMatrix.open(path, SIZE, epoch=3, offset=7, **part)


def padded() -> Bytes:
    content = TABLE.copy()
    content[-1, -13:] = 0
    return content


def assert_part(pages: mg.PageMatrix, content: Bytes, first: int) -> None:
    """A slice has these pages, and knows where they stand in the table."""
    assert np.array_equal(np.stack([pages[at] for at in range(len(pages))]), content)
    assert (pages.first, pages.num_pages, len(pages)) == (first, len(content), len(content))
    assert pages.nbytes == content.size
    assert (pages.table.num_pages, pages.page_size) == (2000, SIZE)
    with pytest.raises(IndexError):
        pages[len(content)]


PARTS = [
    (0, 2000),
    (0, 512),
    (512, 512),
    (512, 1488),
    (1024, 975),
    (1024, 976),
    (1536, 1),
    (1536, 464),
]


@pytest.mark.parametrize(("first", "count"), PARTS)
def test_the_pages_of_a_slice(file: Path, first: int, count: int) -> None:
    expected = padded()[first : first + count]
    for part in (
        open_part(file, first=first, count=count),
        open_part(file).slice(first, count),
        mg.PageMatrix(padded(), epoch=3).slice(first, count),
        open_part(file, first=512 * (first > 0)).slice(first - 512 * (first > 0), count),
    ):
        assert_part(part, expected, first)
        assert part.epoch == part.table.epoch == 3
        assert (part.tail is not None) == (part.mapped and first + count == 2000)


def test_without_a_count_a_slice_has_all_that_follow(file: Path) -> None:
    for part in (open_part(file, first=1024), open_part(file).slice(1024)):
        assert_part(part, padded()[1024:], 1024)


def test_a_whole_matrix_is_the_slice_of_all() -> None:
    pages = mg.PageMatrix(TABLE, epoch=3)
    assert (pages.first, pages.table) == (0, mg.TableShape(2000, SIZE, 3))
    assert (
        repr(pages.slice(0))
        == repr(pages)
        == "PageMatrix(2000 pages of 40 bytes, epoch 3, in memory)"
    )


def test_a_slice_shares_the_memory(file: Path) -> None:
    for pages in (mg.PageMatrix(TABLE), open_part(file)):
        part = pages.slice(512, 600)
        assert np.shares_memory(part.body, pages.body)
        assert not part.body.flags.writeable


def test_only_the_slice_is_mapped(file: Path) -> None:
    path = file.with_name("large")
    with path.open("wb") as large:
        large.seek(64 * 2**30 + 4095)  # a hole
        large.write(b"x")
    part = mg.PageMatrix.open(path, 4096, first=2**24, count=1)
    assert bytes(part[0][-1:]) == b"x"
    # A mapping of the file up to there would be 64 GiB.
    maps = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in maps if str(path) in line]
    assert [int(stop, 16) - int(start, 16) for start, stop in spans] == [4096]


@pytest.mark.parametrize("offset", [0, 1, 4095, 4096, 4097, 10_000])
def test_a_slice_may_begin_at_any_byte_of_a_file(offset: int, tmp_path: Path) -> None:
    """A mapping begins at a page of the system's."""
    (tmp_path / "pages").write_bytes(bytes(offset) + TABLE.tobytes())
    part = mg.PageMatrix.open(tmp_path / "pages", SIZE, offset=offset, first=512, count=700)
    assert np.array_equal(part.body, TABLE[512:1212])
    changed = part.with_changes([699], TABLE[:1], epoch=1)
    assert np.array_equal(changed[699], TABLE[0])
    assert np.array_equal(changed.body[:699], TABLE[512:1211])


def test_a_file_of_less_than_a_page_is_a_slice_too(tmp_path: Path) -> None:
    (tmp_path / "pages").write_bytes(b"abc")
    part = mg.PageMatrix.open(tmp_path / "pages", 8, first=0, count=1)
    assert bytes(part[0]) == b"abc" + bytes(5)
    assert part.body.shape == (0, 8)


def test_a_slice_of_the_padded_page_alone(tmp_path: Path) -> None:
    (tmp_path / "pages").write_bytes(bytes(1024 * 8) + b"abc")
    for part in (
        mg.PageMatrix.open(tmp_path / "pages", 8, first=1024),
        mg.PageMatrix.open(tmp_path / "pages", 8).slice(1024),
    ):
        assert (part.num_pages, part.first, part.body.shape) == (1, 1024, (0, 8))
        assert bytes(part[0]) == b"abc" + bytes(5)
        after = part.with_changes([0], np.ones((1, 8), np.uint8), epoch=1)
        assert (bytes(after[0]), after.first) == (bytes([1] * 8), 1024)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(("first", "count"), [(0, 600), (512, 512), (1024, 976)])
def test_changes_of_a_slice_are_counted_from_its_first_page(
    file: Path, first: int, count: int, mapped: bool
) -> None:
    pages = open_part(file) if mapped else mg.PageMatrix(padded(), epoch=3)
    expected = padded()[first : first + count]
    part = pages.slice(first, count)
    for epoch, indices in ((4, [0, 1, count - 1]), (5, [1, 7]), (6, []), (7, [7, count - 1])):
        new = random_pages(len(indices), SIZE, seed=epoch)
        part = part.with_changes(indices, new, epoch)
        expected[indices] = new
        assert_part(part, expected, first)
        assert part.table == mg.TableShape(2000, SIZE, epoch)
        assert part.mapped is mapped
    assert_part(pages, padded(), 0)
    with pytest.raises(ValueError, match=rf"^an index must be in 0\.\.{count - 1}, not {count}$"):
        part.with_changes([count], TABLE[:1], 8)


def test_a_slice_of_changed_pages_keeps_the_changes(file: Path) -> None:
    indices = [3, 600, 1500, 1999]
    changed = open_part(file).with_changes(indices, random_pages(4, SIZE, seed=9), 4)
    expected = padded()
    expected[indices] = random_pages(4, SIZE, seed=9)
    part = changed.slice(512)
    assert_part(part, expected[512:], 512)
    # The next epoch maps the file anew, and copies them from this one.
    after = part.with_changes([0], TABLE[:1], 5)
    expected[512] = TABLE[0]
    assert_part(after, expected[512:], 512)
    assert_part(after.slice(512, 512), expected[1024:1536], 1024)


def test_a_truncated_file_is_refused_when_it_is_mapped_again(file: Path) -> None:
    part = open_part(file, first=512, count=512)
    os.truncate(file, 30_000)
    with pytest.raises(ValueError, match="was truncated while it was mapped: it has 30000 bytes"):
        part.with_changes([0], TABLE[:1], 4)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_slice_of_a_slice_is_a_slice(data: st.DataObject) -> None:
    pages, content = mg.PageMatrix(TABLE), TABLE
    first = 0
    for _ in range(3):
        begin = 512 * data.draw(st.integers(0, (len(content) - 1) // 512))
        count = data.draw(st.integers(1, len(content) - begin))
        pages, content, first = (
            pages.slice(begin, count),
            content[begin : begin + count],
            first + begin,
        )
    assert_part(pages, content, first)


# Refused


@pytest.mark.parametrize(
    ("first", "count", "message"),
    [
        (1, 1, r"^first must be a multiple of 512, not 1$"),
        (768, None, r"^first must be a multiple of 512, not 768$"),
        (-512, 1, r"^first must be in 0\.\.1999, not -512$"),
        (2048, None, r"^first must be in 0\.\.1999, not 2048$"),
        (0, 0, r"^count of pages from 0 on must be in 1\.\.2000, not 0$"),
        (1536, 465, r"^count of pages from 1536 on must be in 1\.\.464, not 465$"),
        (512, -1, r"^count of pages from 512 on must be in 1\.\.1488, not -1$"),
    ],
)
def test_a_part_that_the_table_does_not_have(
    file: Path, first: int, count: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_part(file, first=first, count=count)
    with pytest.raises(ValueError, match=message):
        mg.PageMatrix(TABLE).slice(first, count)


@pytest.mark.parametrize(("first", "count"), [("0", 1), (0.0, 1), (None, 1), (0, 1.0), (0, "1")])
def test_a_part_by_something_other_than_ints(file: Path, first: Any, count: Any) -> None:
    with pytest.raises(TypeError, match=r"^(first|count) must be an int, not"):
        open_part(file, first=first, count=count)
    with pytest.raises(TypeError, match=r"^(first|count) must be an int, not"):
        mg.PageMatrix(TABLE).slice(first, count)
