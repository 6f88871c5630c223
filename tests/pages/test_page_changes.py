"""PageMatrix.with_changes: the next epoch's pages, of which only the changed ones take memory."""

from __future__ import annotations

import gc
import os
import re
import resource
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import morphogen as mg
from morphogen.pages import check_changes
from naive import Bytes, naive_answers, random_pages


def all_pages(pages: mg.PageMatrix) -> Bytes:
    return np.stack([pages[index] for index in range(len(pages))])


def opened(path: Path, length: int, page_size: int, offset: int = 0) -> mg.PageMatrix:
    """A new file of random bytes, mapped from an offset on."""
    path.write_bytes(random_pages(1, offset + length)[0].tobytes())
    return mg.PageMatrix.open(path, page_size, offset=offset)


@pytest.fixture(params=["mapped", "mapped behind a header", "with a short last page", "array"])
def pages(request: pytest.FixtureRequest, tmp_path: Path) -> mg.PageMatrix:
    """12 pages of 50 bytes, by each kind of matrix."""
    if request.param == "array":
        return mg.PageMatrix(random_pages(12, 50))
    length = 600 - 20 * (request.param == "with a short last page")
    offset = 37 * (request.param == "mapped behind a header")
    return opened(tmp_path / "pages", length, 50, offset)


# What changes, and what does not


@pytest.mark.parametrize("indices", [[], [0], [11], [3, 4], [0, 5, 11], range(12)])
def test_the_given_pages_are_others_and_all_else_is_as_before(
    pages: mg.PageMatrix, indices: list[int]
) -> None:
    before = all_pages(pages)
    new = random_pages(len(indices), 50, seed=1)
    expected = before.copy()
    expected[list(indices)] = new
    changed = pages.with_changes(indices, new, 7)
    assert (changed.epoch, changed.num_pages, changed.page_size) == (7, 12, 50)
    assert (changed.mapped, changed.nbytes) == (pages.mapped, pages.nbytes)
    assert (changed.tail is None) == (pages.tail is None)
    np.testing.assert_array_equal(all_pages(changed), expected)
    np.testing.assert_array_equal(all_pages(pages), before)
    assert pages.epoch == 0


def test_the_new_bytes_are_copied(pages: mg.PageMatrix) -> None:
    indices, new = np.array([2, 11]), random_pages(2, 50, seed=1)
    expected = new.copy()
    changed = pages.with_changes(indices, new, 1)
    new[:] = 0
    indices[:] = 0
    again = changed.with_changes([0], random_pages(1, 50), 2)
    for matrix in (changed, again):
        np.testing.assert_array_equal(np.stack([matrix[2], matrix[11]]), expected)


def test_changed_pages_are_read_only(pages: mg.PageMatrix) -> None:
    changed = pages.with_changes([2, 11], random_pages(2, 50), 1)
    for view in (changed.body, changed[2], changed[3], changed[11]):
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 0
    if changed.mapped:
        with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
            changed.body.flags.writeable = True


def test_the_file_is_not_changed(tmp_path: Path) -> None:
    pages = opened(tmp_path / "pages", 595, 50)
    before = (tmp_path / "pages").read_bytes()
    (tmp_path / "pages").chmod(0o400)
    changed = pages.with_changes(range(12), random_pages(12, 50, seed=1), 1)
    del changed
    assert (tmp_path / "pages").read_bytes() == before


def test_a_page_may_change_back(pages: mg.PageMatrix) -> None:
    before = all_pages(pages)
    changed = pages.with_changes([4, 11], before[[4, 11]] ^ np.uint8(1), 1)
    back = changed.with_changes([4, 11], before[[4, 11]], 2)
    np.testing.assert_array_equal(all_pages(back), before)
    np.testing.assert_array_equal(all_pages(changed)[[4, 11]], before[[4, 11]] ^ 1)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_chain_of_changes_is_that_of_an_array(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    page_size = data.draw(st.sampled_from([1, 3, 64, 4096, 5000]))
    length = data.draw(st.integers(1, 40 * min(page_size, 200)))
    offset = data.draw(st.sampled_from([0, 1, 4096]))
    matrices = [opened(tmp_path_factory.mktemp("m") / "pages", length, page_size, offset)]
    expected = [all_pages(matrices[0])]
    for epoch in range(1, 6):
        base = data.draw(st.integers(0, epoch - 1))
        count = len(expected[base])
        indices = sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=12)))
        new = random_pages(len(indices), page_size, seed=epoch)
        dtype = data.draw(st.sampled_from([np.int64, np.uint64, np.int8, np.uint16]))
        given_as = indices if max(indices, default=0) > 127 else np.array(indices, dtype)
        matrices.append(matrices[base].with_changes(given_as, new, epoch))
        expected.append(expected[base].copy())
        expected[-1][indices] = new
    for epoch, (matrix, right) in enumerate(zip(matrices, expected, strict=True)):
        assert matrix.epoch == epoch
        np.testing.assert_array_equal(all_pages(matrix), right)


def test_earlier_changes_are_copied_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphogen.pages._COPIED_BYTES", 100)
    pages = opened(tmp_path / "pages", 600, 50)
    changed = pages.with_changes(range(12), random_pages(12, 50, seed=1), 1)
    again = changed.with_changes([3], random_pages(1, 50, seed=2), 2)
    expected = random_pages(12, 50, seed=1)
    expected[3] = random_pages(1, 50, seed=2)
    np.testing.assert_array_equal(all_pages(again), expected)


def test_engines_over_both_matrices_answer_their_own(pages: mg.PageMatrix) -> None:
    changed = pages.with_changes([1, 11], random_pages(2, 50, seed=1), 1)
    queries = list(mg.make_query([1, 2, 11], 12))
    for matrix in (pages, changed):
        with mg.open_engine(matrix, device="cpu", threads=1) as engine:
            answer = engine.answer(queries)
        assert answer.epoch == matrix.epoch
        np.testing.assert_array_equal(answer.pages, naive_answers(all_pages(matrix), queries))


# Lifetime


@pytest.mark.parametrize("remove", [True, False])
def test_the_name_may_be_another_file_s_by_now(tmp_path: Path, remove: bool) -> None:
    path = tmp_path / "pages"
    pages = opened(path, 600, 50)
    before = all_pages(pages)
    if remove:
        path.unlink()
    else:
        (tmp_path / "other").write_bytes(bytes(6))
        (tmp_path / "other").replace(path)
    new = random_pages(1, 50, seed=1)
    changed = pages.with_changes([3], new, 1).with_changes([4], new, 2)
    expected = before.copy()
    expected[3:5] = new
    np.testing.assert_array_equal(all_pages(changed), expected)


def test_each_matrix_lives_as_long_as_somebody_holds_it_or_its_pages(tmp_path: Path) -> None:
    first = opened(tmp_path / "pages", 580, 50)
    expected = all_pages(first)
    second = first.with_changes([1], random_pages(1, 50, seed=1), 1)
    del first
    gc.collect()
    third = second.with_changes([2, 11], random_pages(2, 50, seed=2), 2)
    page, body = second[1], third.body
    ended = weakref.ref(second._file)  # all three have it
    del second, third
    gc.collect()
    assert ended() is None
    np.testing.assert_array_equal(page, random_pages(1, 50, seed=1)[0])
    np.testing.assert_array_equal(body[1], page)
    np.testing.assert_array_equal(body[2], random_pages(2, 50, seed=2)[0])
    np.testing.assert_array_equal(body[3:], expected[3:11])


def test_no_file_stays_open(tmp_path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("needs /proc/self/fd")
    pages = opened(tmp_path / "pages", 600, 50)
    new = random_pages(1, 50)
    before = len(list(descriptors.iterdir()))
    for epoch in range(50):
        pages.with_changes([3], new, epoch)
        with pytest.raises(TypeError):
            pages.with_changes([3], new, "")  # type: ignore[arg-type]
    assert len(list(descriptors.iterdir())) == before
    for epoch in range(50):
        pages = pages.with_changes([3], new, epoch)
    assert len(list(descriptors.iterdir())) == before


def test_a_truncated_file_is_not_mapped_again(tmp_path: Path) -> None:
    path = tmp_path / "pages"
    pages = opened(path, 600, 50)
    os.truncate(path, 599)
    message = f"{path} was truncated while it was mapped: it has 599 bytes instead of 600"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pages.with_changes([3], random_pages(1, 50), 1)


def test_a_file_that_cannot_be_mapped_again_is_named(tmp_path: Path) -> None:
    """As without memory: this process may have less than the file's size."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 38)
    pages = mg.PageMatrix.open(path)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 38, limits[1]))
    try:
        with pytest.raises(OSError, match="Cannot allocate memory") as caught:
            pages.with_changes([3], random_pages(1, 4096), 1)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert caught.value.filename == str(path)


# Memory

CHAIN = """
import sys
import numpy as np
import morphogen as mg

def grown_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

pages = mg.PageMatrix.open(sys.argv[1], epoch=0)
count, indices = len(pages), np.arange(0, 100) * (len(pages) // 100)
pages.with_changes([0], np.zeros((1, 4096), np.uint8), 1)
before = grown_kib()
for epoch in range(1, 21):
    new = np.full((100, 4096), epoch, np.uint8)
    pages = pages.with_changes(indices + epoch % 4, new, epoch)
    assert pages[int(indices[-1]) + epoch % 4][0] == epoch and pages[5][0] == 0
print(grown_kib() - before)
"""


def test_memory_holds_the_changed_pages_of_a_file_larger_than_memory(tmp_path: Path) -> None:
    """And not those of epochs that nobody holds any more."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        try:
            file.truncate(memory * 5 // 4)
        except OSError as error:
            pytest.skip(f"no room for a sparse file: {error.strerror}")
    result = subprocess.run(
        [sys.executable, "-c", CHAIN, str(path)], capture_output=True, text=True
    )
    assert result.stderr == ""
    # 400 pages in all, by another matrix before they are freed, and what loads with them.
    assert int(result.stdout) < 2 * 400 * 4 + (4 << 10)


# Bad input


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([1.0, 2], TypeError, "indices must be a sequence of ints: 'float' object cannot be .*"),
        ([True, 2], TypeError, "indices must be a sequence of ints: 'bool' object cannot be .*"),
        (7, TypeError, "indices must be a sequence of ints: 'int' object is not iterable"),
        (np.zeros(2), TypeError, "indices must be a sequence of ints, not of float64"),
        (np.ones(2, dtype=bool), TypeError, "indices must be a sequence of ints, not of bool"),
        (np.zeros((2, 1), int), ValueError, "indices must have 1 dimension, not 2"),
        ([3, 12], ValueError, "an index must be in 0..11, not 12"),
        ([-1, 3], ValueError, "an index must be in 0..11, not -1"),
        (np.array([-1, 3]), ValueError, "an index must be in 0..11, not -1"),
        ([3, 2**70], ValueError, f"an index must be in 0..11, not {2**70}"),
        (
            np.array([3, 2**64 - 1], dtype=np.uint64),
            ValueError,
            f"an index must be in 0..11, not {2**64 - 1}",
        ),
        ([5, 5], ValueError, "indices must be ascending, not 5, then 5"),
        ([5, 4], ValueError, "indices must be ascending, not 5, then 4"),
        (
            np.array([5, 4], dtype=np.uint8),
            ValueError,
            "indices must be ascending, not 5, then 4",
        ),
        ([5], ValueError, "pages must have shape (1, 50), not (2, 50)"),
        ([], ValueError, "pages must have shape (0, 50), not (2, 50)"),
    ],
)
def test_indices_that_do_not_fit(
    pages: mg.PageMatrix, indices: Any, error: type[Exception], message: str
) -> None:
    pattern = message if message.endswith(".*") else re.escape(message)
    with pytest.raises(error, match=f"^{pattern}$"):
        pages.with_changes(indices, random_pages(2, 50), 1)


@pytest.mark.parametrize(
    ("new", "error", "message"),
    [
        (b"page", TypeError, "pages must be a numpy.ndarray, not bytes"),
        (np.zeros((2, 50)), TypeError, "pages must have dtype uint8, not float64"),
        (random_pages(2, 49), ValueError, "pages must have shape (2, 50), not (2, 49)"),
        (random_pages(1, 50)[0], ValueError, "pages must have shape (2, 50), not (50,)"),
    ],
)
def test_new_bytes_that_do_not_fit(
    pages: mg.PageMatrix, new: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        pages.with_changes([0, 1], new, 1)


@pytest.mark.parametrize(
    ("epoch", "error"), [(-1, ValueError), (2**63, ValueError), (1.0, TypeError)]
)
def test_epochs_that_no_server_can_announce(
    pages: mg.PageMatrix, epoch: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"^epoch must be "):
        pages.with_changes([0], random_pages(1, 50), epoch)


def test_changes_of_a_table_of_one_page() -> None:
    found = check_changes([0], random_pages(1, 9), 1, 9)
    assert found.tolist() == [0]
    assert found.dtype == np.int64
    assert check_changes([2**40 - 1], random_pages(1, 9), 2**40, 9).tolist() == [2**40 - 1]
    assert check_changes(iter(()), random_pages(0, 9)[:0], 1, 9).tolist() == []
