"""PageMatrix: pages over an array, or mapped from a file."""

from __future__ import annotations

import copy
import os
import pickle
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from naive import Bytes, random_pages

# Over an array


def test_the_array_is_shared_and_not_copied() -> None:
    original = random_pages(10, 7)
    pages = mg.PageMatrix(original)
    assert (pages.num_pages, pages.page_size, pages.epoch) == (10, 7, 0)
    assert (len(pages), pages.nbytes) == (10, 70)
    assert np.shares_memory(pages.body, original)
    assert pages.body.shape == original.shape
    assert pages.tail is None
    assert original.flags.writeable
    original[3] = 255
    assert (pages[3] == 255).all()


def test_pages_are_read_only() -> None:
    pages = mg.PageMatrix(random_pages(10, 7))
    for view in (pages.body, pages[0]):
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 0
    for name in ("num_pages", "page_size", "epoch"):
        with pytest.raises(AttributeError):
            setattr(pages, name, 1)


def test_a_read_only_array_will_do() -> None:
    original = random_pages(10, 7)
    original.flags.writeable = False
    assert np.shares_memory(mg.PageMatrix(original).body, original)
    frozen = np.frombuffer(bytes(range(20)), dtype=np.uint8).reshape(4, 5)
    assert bytes(mg.PageMatrix(frozen)[3]) == bytes(range(15, 20))


def iterated(pages: Any) -> Iterator[Bytes]:
    """The pages one by one; type checkers do not know that an index is all that takes."""
    return iter(pages)


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (64, 1)])
def test_arrays_of_one_row_or_column(shape: tuple[int, int]) -> None:
    """Numpy calls these contiguous with any strides."""
    flat = random_pages(1, shape[0] * shape[1])[0]
    for original in (flat.reshape(shape), flat.reshape(shape[::-1]).T):
        pages = mg.PageMatrix(original)
        assert b"".join(bytes(page) for page in iterated(pages)) == bytes(flat)


def test_subclasses_of_arrays(tmp_path: Path) -> None:
    original = random_pages(4, 6)
    (tmp_path / "pages").write_bytes(bytes(original))
    mapped = np.memmap(tmp_path / "pages", dtype=np.uint8, mode="r", shape=(4, 6))
    view: Any = original.view(type("Array", (np.ndarray,), {}))
    for array in (mapped, view):
        pages = mg.PageMatrix(array)
        assert type(pages.body) is np.ndarray
        assert bytes(pages[2]) == bytes(original[2])


@pytest.mark.parametrize("array", [None, [[1, 2]], b"12", bytearray(4), memoryview(b"12"), 3])
def test_not_an_array(array: Any) -> None:
    name = type(array).__name__
    with pytest.raises(TypeError, match=rf"must be a numpy\.ndarray, not {name}$"):
        mg.PageMatrix(array)


@pytest.mark.parametrize("dtype", ["int8", "bool", "uint16", "float64", "S1", "object"])
def test_array_of_another_dtype(dtype: str) -> None:
    array: Any = np.zeros((4, 4)).astype(dtype)
    with pytest.raises(
        TypeError, match=rf"must have dtype uint8, not {re.escape(str(array.dtype))}$"
    ):
        mg.PageMatrix(array)


@pytest.mark.parametrize("shape", [(), (4,), (4, 4, 4)])
def test_array_of_another_dimension(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"2 dimensions, not {len(shape)}$"):
        mg.PageMatrix(np.zeros(shape, dtype=np.uint8))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_empty_array(shape: tuple[int, int]) -> None:
    with pytest.raises(
        ValueError, match=rf"at least one page .* not shape {re.escape(str(shape))}$"
    ):
        mg.PageMatrix(np.zeros(shape, dtype=np.uint8))


@pytest.mark.parametrize(
    "array",
    [
        random_pages(8, 8)[::2],
        random_pages(8, 8)[:, :4],
        random_pages(8, 8)[::-1],
        random_pages(8, 6).T,
        np.broadcast_to(random_pages(1, 8), (8, 8)),
    ],
)
def test_array_that_is_not_contiguous(array: Any) -> None:
    with pytest.raises(ValueError, match="C-contiguous") as caught:
        mg.PageMatrix(array)
    assert str(array.strides) in str(caught.value)


@pytest.mark.parametrize("epoch", [0, 5, 2**63 - 1, np.int64(5), np.uint8(5)])
def test_epoch_is_an_int(epoch: Any) -> None:
    pages = mg.PageMatrix(random_pages(2, 2), epoch=epoch)
    assert pages.epoch == epoch
    assert type(pages.epoch) is int


@pytest.mark.parametrize("epoch", [-1, 2**63, -(2**80), 2**80])
def test_an_epoch_that_no_server_can_announce(epoch: int, tmp_path: Path) -> None:
    message = rf"^epoch must be in 0\.\.2\*\*63 - 1, not {epoch}$"
    with pytest.raises(ValueError, match=message):
        mg.PageMatrix(random_pages(2, 2), epoch=epoch)
    with pytest.raises(ValueError, match=message):
        mg.PageMatrix.open(tmp_path / "never opened", epoch=epoch)


@pytest.mark.parametrize("epoch", [1.0, "1", None, b"1"])
def test_epoch_of_another_type(epoch: Any, tmp_path: Path) -> None:
    (tmp_path / "pages").write_bytes(b"page")
    message = rf"epoch must be an int, not {type(epoch).__name__}$"
    with pytest.raises(TypeError, match=message):
        mg.PageMatrix(random_pages(2, 2), epoch=epoch)
    with pytest.raises(TypeError, match=message):
        mg.PageMatrix.open(tmp_path / "pages", epoch=epoch)


# Indexing


@pytest.mark.parametrize("length", [20, 18])
def test_indexing(length: int, tmp_path: Path) -> None:
    data = bytes(range(1, length + 1))
    (tmp_path / "pages").write_bytes(data)
    pages = mg.PageMatrix.open(tmp_path / "pages", page_size=5)
    padded = data + bytes(20 - length)
    expected = [padded[i : i + 5] for i in range(0, 20, 5)]
    assert [bytes(pages[i]) for i in range(4)] == expected
    assert [bytes(page) for page in iterated(pages)] == expected
    assert bytes(pages[np.uint8(3)]) == expected[3]
    for index in (4, -1, 2**70):
        with pytest.raises(IndexError, match=rf"in 0\.\.3, not {index}$"):
            pages[index]
    for other in (1.0, "1", None, slice(0, 2)):
        with pytest.raises(TypeError):
            pages[other]  # type: ignore[index]


def test_repr_shows_no_page() -> None:
    pages = mg.PageMatrix(random_pages(10, 7), epoch=3)
    assert repr(pages) == "PageMatrix(10 pages of 7 bytes, epoch 3, in memory)"


def test_a_page_matrix_is_not_sent_around() -> None:
    pages = mg.PageMatrix(random_pages(10, 7))
    for send in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            send(pages)


# Over a file


@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 16, 100, 4096])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 99, 100, 101, 4096, 12_288, 12_289, 20_479])
def test_a_short_last_page_is_filled_with_zeros(
    tmp_path: Path, page_size: int, length: int
) -> None:
    data = bytes(random_pages(1, length) | 1)
    path = tmp_path / "pages"
    path.write_bytes(data)
    pages = mg.PageMatrix.open(path, page_size=page_size)
    assert pages.num_pages == -(-length // page_size)
    assert pages.nbytes == pages.num_pages * page_size
    assert (pages.tail is None) == (length % page_size == 0)
    assert len(pages.body) == length // page_size
    assert b"".join(bytes(page) for page in iterated(pages)) == data.ljust(pages.nbytes, b"\0")
    assert path.read_bytes() == data


def test_open_by_default(tmp_path: Path) -> None:
    path = tmp_path / "pages"
    path.write_bytes(bytes(3 * 4096))
    for given in (path, str(path)):
        pages = mg.PageMatrix.open(given)
        assert (pages.num_pages, pages.page_size, pages.epoch) == (3, 4096, 0)
    assert mg.PageMatrix.open(path, page_size=512, epoch=9).epoch == 9
    assert repr(pages) == "PageMatrix(3 pages of 4096 bytes, epoch 0, mapped)"


def test_mapped_pages_are_read_only(tmp_path: Path) -> None:
    path = tmp_path / "pages"
    path.write_bytes(bytes(range(100)))
    path.chmod(0o400)
    pages = mg.PageMatrix.open(path, page_size=30)
    for page in (pages.body, pages[0], pages[3]):
        with pytest.raises(ValueError, match="read-only"):
            page[...] = 0


def test_mapped_pages_outlive_their_name(tmp_path: Path) -> None:
    path = tmp_path / "pages"
    path.write_bytes(b"0123456789")
    pages = mg.PageMatrix.open(path, page_size=4)
    page = pages[1]
    path.unlink()
    assert bytes(pages[0]) == b"0123"
    del pages
    assert bytes(page) == b"4567"


def test_no_file_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "pages"
    path.write_bytes(bytes(100))
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("needs /proc/self/fd")
    mg.PageMatrix.open(path)  # loads all that the first use loads
    before = len(list(descriptors.iterdir()))
    for _ in range(50):
        mg.PageMatrix.open(path)
        with pytest.raises(TypeError):
            mg.PageMatrix.open(path, epoch="")  # type: ignore[arg-type]
    assert len(list(descriptors.iterdir())) == before


@pytest.mark.parametrize("page_size", [0, -1, 2**40 + 1, -(2**70), 2**70])
def test_page_size_out_of_range(tmp_path: Path, page_size: int) -> None:
    with pytest.raises(ValueError, match=rf"page_size must be in 1\.\.2\*\*40, not {page_size}$"):
        mg.PageMatrix.open(tmp_path / "none", page_size=page_size)


@pytest.mark.parametrize("page_size", [1.0, "1", None])
def test_page_size_of_another_type(tmp_path: Path, page_size: Any) -> None:
    name = type(page_size).__name__
    with pytest.raises(TypeError, match=rf"page_size must be an int, not {name}$"):
        mg.PageMatrix.open(tmp_path / "none", page_size=page_size)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        mg.PageMatrix.open(tmp_path / "none")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        mg.PageMatrix.open(tmp_path)


def test_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ValueError, match=rf"a file to map: {re.escape(str(path))} is a pipe$"):
        mg.PageMatrix.open(path)


def test_device() -> None:
    with pytest.raises(ValueError, match=r"a file to map: /dev/zero is a character device$"):
        mg.PageMatrix.open("/dev/zero")


def test_a_file_that_cannot_be_mapped_is_named(tmp_path: Path) -> None:
    """As without memory: this process may have less than the file's size."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 38)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 37, limits[1]))
    try:
        with pytest.raises(OSError, match="Cannot allocate memory") as caught:
            mg.PageMatrix.open(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert caught.value.filename == str(path)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    with pytest.raises(ValueError, match=rf"at least one byte: {re.escape(str(path))} has 0$"):
        mg.PageMatrix.open(path)


@pytest.mark.parametrize("path", [None, 3, 1.5, ["pages"]])
def test_path_of_another_type(path: Any) -> None:
    with pytest.raises(TypeError):
        mg.PageMatrix.open(path)


UNREADABLE = """
import os, sys
import morphogen as mg
mg.PageMatrix  # loaded while files can still be read
if os.getuid() == 0:
    try:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    except OSError:
        sys.exit("stays root")
try:
    mg.PageMatrix.open(sys.argv[1])
except PermissionError as error:
    print(error.filename)
"""


def test_unreadable_file() -> None:
    # Not in tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = Path(directory, "pages")
        path.write_bytes(b"page")
        path.chmod(0)
        result = subprocess.run(
            [sys.executable, "-c", UNREADABLE, str(path)], capture_output=True, text=True
        )
    if result.stderr == "stays root\n":
        pytest.skip("root reads every file, and cannot become another user here")
    assert result.stderr == ""
    assert result.stdout.strip() == str(path)
