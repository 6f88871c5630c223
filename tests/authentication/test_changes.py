"""Changed contents of authenticated pages: as if the table was sealed anew, by its groups alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import morphogen as mg
import morphogen.authentication.changes as changes
from authentication_format import Table
from morphogen.authentication import Seal, seal_pages
from morphogen.authentication.changes import Changed, change_pages
from naive import Bytes, random_pages

OLD, NEW = b"the layout before", b"the layout after"


def sealed(contents: Bytes, levels: int, layout: bytes = OLD) -> Seal:
    return seal_pages(contents, contents.shape[1] + 32 * levels, levels, layout)


def changed(seal: Seal, levels: int, indices: Any, contents: Bytes) -> Changed:
    return change_pages(mg.PageMatrix(seal.pages), seal.cap, levels, NEW, indices, contents)


def check(found: Changed, before: Seal, after: Seal) -> None:
    """What was found, and nothing else, makes one table the other."""
    differ = np.flatnonzero((before.pages != after.pages).any(axis=1))
    np.testing.assert_array_equal(found.indices, differ)
    np.testing.assert_array_equal(found.pages, after.pages[differ])
    np.testing.assert_array_equal(found.cap, after.cap)
    assert found.root == after.root


@st.composite
def cases(draw: st.DrawFn) -> tuple[Bytes, int, list[int], Bytes]:
    num_pages = draw(st.integers(1, 200))
    levels = draw(st.integers(0, (num_pages - 1).bit_length()))
    size = draw(st.integers(1, 40))
    last = st.integers(max(0, num_pages - 3), num_pages - 1)  # odd groups are at the end
    indices = sorted(draw(st.sets(st.one_of(st.integers(0, num_pages - 1), last), max_size=20)))
    new = random_pages(num_pages, size, seed=draw(st.integers(0, 9)))[indices]
    return random_pages(num_pages, size), levels, indices, new


@settings(max_examples=100, deadline=None)
@given(case=cases(), part_bytes=st.sampled_from([1, 700, 1 << 20]))
def test_changes_are_those_of_sealing_anew(
    case: tuple[Bytes, int, list[int], Bytes], part_bytes: int
) -> None:
    contents, levels, indices, new = case
    before = sealed(contents, levels)
    after = contents.copy()
    after[indices] = new
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes, "_PART_BYTES", part_bytes)
        found = changed(before, levels, np.array(indices, dtype=np.uint64), new)
    check(found, before, sealed(after, levels, NEW))


def test_changes_are_those_of_the_independent_implementation() -> None:
    contents, new = random_pages(11, 7), random_pages(2, 7, seed=1)
    before = sealed(contents, 2)
    contents[[3, 10]] = new
    table = Table(tuple(row.tobytes() for row in contents), 2, NEW)
    found = changed(before, 2, [3, 10], new)
    assert found.indices.tolist() == [0, 1, 2, 3, 8, 9, 10]
    assert [row.tobytes() for row in found.pages] == list(map(table.page, found.indices.tolist()))
    assert [row.tobytes() for row in found.cap] == table.cap()
    assert found.root == table.root()


def test_contents_that_stay_change_no_page() -> None:
    contents = random_pages(11, 7)
    before = sealed(contents, 2)
    found = changed(before, 2, [3, 10], contents[[3, 10]])
    assert len(found.indices) == len(found.pages) == 0
    check(found, before, sealed(contents, 2, NEW))
    check(changed(before, 2, [], contents[:0]), before, sealed(contents, 2, NEW))


def test_only_the_groups_of_changed_pages_are_read() -> None:
    contents, new = random_pages(50, 7), random_pages(2, 7, seed=1)
    before = sealed(contents, 3)
    damaged = before.pages.copy()
    groups = np.arange(50) >> 3
    damaged[(groups != 2) & (groups != 6)] = 0
    found = change_pages(mg.PageMatrix(damaged), before.cap, 3, NEW, [17, 49], new)
    contents[[17, 49]] = new
    check(found, before, sealed(contents, 3, NEW))


def test_nothing_that_is_given_is_changed() -> None:
    contents, new = random_pages(9, 7), random_pages(1, 7, seed=1)
    before = sealed(contents, 2)
    pages, cap, kept = before.pages.copy(), before.cap.copy(), new.copy()
    found = changed(before, 2, [4], new)
    np.testing.assert_array_equal(before.pages, pages)
    np.testing.assert_array_equal(before.cap, cap)
    np.testing.assert_array_equal(new, kept)
    assert not np.shares_memory(found.cap, before.cap)


def test_the_last_page_of_a_file_may_be_short(tmp_path: Path) -> None:
    path = tmp_path / "pages"
    path.write_bytes(bytes(range(100)))
    contents = np.frombuffer(bytes(range(100)).ljust(105, b"\0"), np.uint8).reshape(7, 15)
    before, pages = sealed(contents, 0), mg.PageMatrix.open(path, 15)
    assert pages.tail is not None
    new = random_pages(1, 15)
    found = change_pages(pages, before.cap, 0, NEW, [6], new)
    after = contents.copy()
    after[6] = new
    check(found, before, sealed(after, 0, NEW))


def test_a_table_of_the_next_epoch_proves_itself() -> None:
    contents, new = random_pages(100, 9), random_pages(3, 9, seed=1)
    before = sealed(contents, 4)
    found = changed(before, 4, [5, 50, 99], new)
    matrix = mg.PageMatrix(before.pages).with_changes(found.indices, found.pages, 1)
    contents[[5, 50, 99]] = new
    np.testing.assert_array_equal(matrix.body, sealed(contents, 4, NEW).pages)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"proof_levels": 5}, ValueError, "proof_levels must be in 0..4, not 5"),
        ({"cap": np.zeros((4, 32), np.uint8)}, ValueError, "cap must have shape (3, 32), not (4,"),
        ({"layout": "x"}, TypeError, "layout must be bytes, not str"),
        ({"indices": [10, 12]}, ValueError, "an index must be in 0..10, not 12"),
        ({"indices": [4, 4]}, ValueError, "indices must be ascending, not 4, then 4"),
        ({"indices": [4.0, 5]}, TypeError, "indices must be a sequence of ints: "),
        ({"indices": [4]}, ValueError, "contents must have shape (1, 7), not (2, 7)"),
        (
            {"contents": random_pages(2, 71)},
            ValueError,
            "contents must have shape (2, 7), not (2, 71)",
        ),
        ({"contents": b"x"}, TypeError, "contents must be a numpy.ndarray, not bytes"),
    ],
)
def test_what_cannot_be_changed(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    seal = sealed(random_pages(11, 7), 2)
    right: dict[str, Any] = {
        "pages": mg.PageMatrix(seal.pages),
        "cap": seal.cap,
        "proof_levels": 2,
        "layout": NEW,
        "indices": [1, 4],
        "contents": random_pages(2, 7),
    }
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        change_pages(**(right | arguments))
