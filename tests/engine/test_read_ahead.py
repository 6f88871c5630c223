"""Passes over a file that is not in memory: right answers, read in order, once."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import morphogen as mg
from morphogen.engine.cpu import CpuEngine
from naive import naive_answers

MIB = 1 << 20
BYTES = 80 * MIB  # files under 64 MiB are not read in advance
_LIBC = ctypes.CDLL(None, use_errno=True)


def share_in_memory(path: Path) -> float:
    """Return the share of a file's pages that the system has in memory."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        whole = np.frombuffer(mapping, dtype=np.uint8)
        flags = np.zeros(-(-whole.size // mmap.PAGESIZE), dtype=np.uint8)
        address, size = ctypes.c_void_p(whole.ctypes.data), ctypes.c_size_t(whole.size)
        assert _LIBC.mincore(address, size, ctypes.c_void_p(flags.ctypes.data)) == 0
        del whole
    return float((flags & 1).mean())


def drop(path: Path) -> None:
    """Let the system forget what it has of the file in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if share_in_memory(path) > 0.1:
        pytest.skip("this file system keeps files in memory")


@pytest.fixture(scope="module")
def content() -> npt.NDArray[np.uint8]:
    return np.frombuffer(np.random.default_rng(4).bytes(BYTES + 1_500), dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path, content: npt.NDArray[np.uint8]) -> Path:
    path = tmp_path / "pages"
    path.write_bytes(content.tobytes())
    return path


@pytest.mark.parametrize(
    "page_size",
    [
        pytest.param(333, marks=pytest.mark.slow),
        4_096,
        pytest.param(70_000, marks=pytest.mark.slow),
        MIB,
    ],
)
def test_answers_are_right_with_a_header_and_a_short_last_page(
    path: Path, content: npt.NDArray[np.uint8], page_size: int
) -> None:
    offset = 13
    pages = mg.PageMatrix.open(path, page_size, offset=offset)
    assert pages.mapped
    assert pages.tail is not None
    num_pages = pages.num_pages
    array = np.zeros((num_pages, page_size), dtype=np.uint8)
    array.reshape(-1)[: content.size - offset] = content[offset:]
    rows = np.random.default_rng(5).integers(num_pages, size=(2, 3))
    for threads, batch in (
        (1, mg.make_queries(rows, num_pages)[0]),
        (2, mg.make_queries(rows[:, :1], num_pages)[1]),
    ):
        del pages  # what is mapped cannot be dropped
        drop(path)
        pages = mg.PageMatrix.open(path, page_size, offset=offset)
        with CpuEngine(pages, threads=threads) as engine:
            answer = engine.answer(batch)
        del engine  # which has the pages
        assert np.array_equal(answer.pages, naive_answers(array, batch))


def mapped_by_morphogen(path: Path, page_size: int) -> mg.PageMatrix:
    pages = mg.PageMatrix.open(path, page_size)
    mapping: Any = pages.body
    while not isinstance(mapping, mmap.mmap):
        mapping = mapping.base if isinstance(mapping, np.ndarray) else mapping.obj
    mapping.madvise(mmap.MADV_RANDOM)  # the system itself reads nothing in advance
    return pages


def mapped_by_the_caller(path: Path, page_size: int) -> mg.PageMatrix:
    array = np.memmap(path, dtype=np.uint8, mode="r")
    array._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
    count = array.size // page_size
    return mg.PageMatrix(array[: count * page_size].reshape(count, page_size))


@pytest.mark.parametrize(
    ("open_pages", "page_size", "read"),
    [
        (mapped_by_morphogen, MIB, True),
        (mapped_by_morphogen, 1 << 16, True),
        (mapped_by_the_caller, MIB, False),
    ],
    ids=["several strips", "one strip", "an array over a file"],
)
def test_a_pass_reads_the_whole_of_a_mapped_file_and_of_nothing_else(
    path: Path, open_pages: Callable[[Path, int], mg.PageMatrix], page_size: int, read: bool
) -> None:
    os.truncate(path, BYTES)
    pages = open_pages(path, page_size)
    assert pages.mapped == (open_pages is mapped_by_morphogen)
    batch = mg.make_queries([[7]], pages.num_pages)[0]
    drop(path)
    with CpuEngine(pages, threads=2) as engine:
        engine.answer(batch)
    # A key selects half of the pages, and no other is read by the pass.
    assert (share_in_memory(path) > 0.9) == read


def advice(path: Path) -> list[set[str]]:
    """Return the flags of this process's mappings of a file, as the system names them."""
    flags, found = list[set[str]](), False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.partition(" ")[0]:  # the addresses of a mapping
            found = line.endswith(f" {path}")
        elif found and line.startswith("VmFlags:"):
            flags.append(set(line.split()[1:]))
    return flags


def test_a_pass_leaves_no_advice_about_the_mapping(path: Path) -> None:
    os.truncate(path, BYTES)
    pages = mapped_by_morphogen(path, 4_096)
    assert any("rr" in flags for flags in advice(path)), "it was to be read at random"
    batch = mg.make_queries([[7]], pages.num_pages)[0]
    drop(path)
    with CpuEngine(pages, threads=2) as engine:
        engine.answer(batch)
    assert advice(path)
    assert not any({"sr", "rr"} & flags for flags in advice(path))


FORKED = """
import os, sys
import numpy as np
import morphogen as mg
pages = mg.PageMatrix.open(sys.argv[1], 65536)
batch, _ = mg.make_queries([[1, 2, 3]], pages.num_pages)
with mg.open_engine(pages, "cpu") as engine:
    expected = engine.answer(batch).pages
child = os.fork()
if child == 0:
    with mg.open_engine(pages, "cpu") as engine:
        os._exit(0 if np.array_equal(engine.answer(batch).pages, expected) else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_reads_the_mapping_with_an_engine_of_its_own(path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FORKED, str(path)], capture_output=True, text=True, check=False
    )
    assert (run.stdout, run.stderr) == ("0\n", "")
