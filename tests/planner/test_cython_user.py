"""The planner and the packer at the C level, as a module outside this repository uses them.

docs/reference/cython.md shows the module. These tests compile it in an empty folder, against the
installed package, with the command that the document gives.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import morphogen as mg
from documents import page_blocks
from naive import random_rows
from native_build import cxx

SOURCE = Path(__file__).resolve().parent / "cython_user" / "packed_chunks.pyx"
PAGE = "docs/reference/cython.md"
NUM_PAGES = 70_000


def blocks(language: str) -> list[str]:
    """Return the document's code blocks of a language."""
    found = page_blocks(PAGE)
    return [block.text for block in found if block.language == language]


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Compile and import the user's module."""
    cxx()
    pytest.importorskip("Cython", reason="needs Cython")
    pytest.importorskip("setuptools", reason="needs setuptools")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        pytest.skip("needs Python's headers")
    folder = tmp_path_factory.mktemp("cython_user")
    shutil.copy(SOURCE, folder)
    (command,) = re.findall(r"^cythonize (.*)$", blocks("sh")[0], flags=re.MULTILINE)
    run = subprocess.run(
        [sys.executable, "-m", "Cython.Build.Cythonize", *command.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = folder.glob("packed_chunks.*.so")
    spec = importlib.util.spec_from_file_location("packed_chunks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_shows_the_module() -> None:
    assert blocks("cython") == [SOURCE.read_text(encoding="utf-8")]


def test_the_document_s_example(user: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "packed_chunks", user)
    (example,) = blocks("python")
    exec(compile(example, PAGE, "exec"), {})


@pytest.mark.parametrize("keys", [1, 2, 3])
@pytest.mark.parametrize("total", [0, 1, 2, 5, 33])
@pytest.mark.parametrize("width", [1, 2, 8])
def test_chunks_are_what_python_packs(user: ModuleType, total: int, keys: int, width: int) -> None:
    queries, _ = mg.make_queries(random_rows(total, keys, NUM_PAGES), NUM_PAGES)
    packer = mg.planner.KeyPacker(NUM_PAGES)
    chunks = user.packed_chunks(packer, queries, width)
    ranges = mg.planner.micro_batch_ranges(total, width)
    assert chunks == [
        b"".join(key for query in queries[start:stop] for key in query.keys)
        for start, stop in ranges
    ]
    assert b"".join(chunks) == packer.packed()


def test_a_packer_is_used_again(user: ModuleType) -> None:
    packer = mg.planner.KeyPacker(NUM_PAGES)
    for total in (9, 2, 40):
        queries, _ = mg.make_queries(random_rows(total, 3, NUM_PAGES, seed=total), NUM_PAGES)
        expected = b"".join(key for query in queries for key in query.keys)
        assert b"".join(user.packed_chunks(packer, queries, 2)) == expected


def other_table() -> list[Any]:
    return list(mg.make_query([5], NUM_PAGES * 4)[:1])


def different_widths() -> list[Any]:
    return [mg.make_query(row, NUM_PAGES)[0] for row in ([1, 2, 3], [4])]


class NotQuite:
    """An object that holds keys as a Query does, but unchecked ones."""

    keys = (b"MGK1 and nothing more",)


@pytest.mark.parametrize(
    ("queries", "error", "message"),
    [
        (other_table(), mg.KeyDomainError, "70000"),
        (different_widths(), ValueError, r"queries\[0\] has 3, queries\[1\] has 1"),
        ([NotQuite()], mg.InvalidKeyError, "at least 112 bytes, this one 21"),
        (["no query"], TypeError, r"queries\[0\] must be a Query with its keys, not str"),
        (None, TypeError, "queries"),
        ((), TypeError, "list"),
    ],
    ids=["table", "widths", "key", "query", "None", "tuple"],
)
def test_errors_pass_through_c(
    user: ModuleType, queries: Any, error: type[Exception], message: str
) -> None:
    packer = mg.planner.KeyPacker(NUM_PAGES)
    good, _ = mg.make_query([1, 2, 3], NUM_PAGES)
    with pytest.raises(error, match=message):
        user.packed_chunks(packer, queries, 2)
    assert packer.query_count == 0
    assert user.packed_chunks(packer, [good], 2) == [b"".join(good.keys)]


@pytest.mark.parametrize("packer", [None, "no packer"])
def test_other_objects_are_no_packers(user: ModuleType, packer: Any) -> None:
    with pytest.raises(TypeError, match="packer"):
        user.packed_chunks(packer, [], 2)


def test_nothing_of_this_repository_is_needed() -> None:
    # Cython follows every cimport, and a cimport of kernels.pxd would need C++ headers.
    source = (Path(mg.__file__).parent / "planner.pxd").read_text(encoding="utf-8")
    cimported = re.findall(r"^(?:from (\S+) )?cimport (\S+)", source, flags=re.MULTILINE)
    assert {module or name for module, name in cimported} == {"cython", "libc.stdint"}
    assert "extern" not in source
