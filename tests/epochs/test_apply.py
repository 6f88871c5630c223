"""Deltas between table files: made, and applied to pages that are served and to files."""

from __future__ import annotations

import random
import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import morphogen as mg
from applied_deltas import apply_to_pages, changed, folder
from delta_format import delta_file
from ended_command import PATIENCE
from morphogen.epochs.apply import apply_delta, apply_to_table
from morphogen.epochs.delta import open_delta
from morphogen.epochs.diff import diff_tables
from morphogen.keyword import TableLayout
from morphogen.keyword.file import open_table, read_cap, read_header
from morphogen.keyword.sealing import seal_file
from naive import Bytes, random_pages
from sealed_files import layout_of, write_sealed

__all__ = ["folder"]


# Right deltas


def test_a_delta_is_what_the_document_says(folder: Path) -> None:
    old, new = (read_header(folder / name) for name in ("old", "new"))
    contents = open_table(folder / "new").pages.body[:, :86]
    assert old.root is not None
    assert new.root is not None
    assert (folder / "delta").read_bytes() == delta_file(
        {at: contents[at].tobytes() for at in (0, 5, 6, 18)},
        epochs=(6, 7),
        shape=(19, 150, 2),
        roots=(old.root, new.root),
        layout=new.authenticated_layout,
    )


def test_a_delta_makes_one_file_the_other(folder: Path, chunk_bytes: int) -> None:
    header = apply_to_table(folder / "old", folder / "delta", folder / "result")
    assert (folder / "result").read_bytes() == (folder / "new").read_bytes()
    assert header == read_header(folder / "new")


def test_a_delta_makes_served_pages_those_of_the_other_file(folder: Path) -> None:
    pages, cap, root = apply_to_pages(folder / "old", folder / "delta")
    np.testing.assert_array_equal(pages, open_table(folder / "new").pages.body)
    np.testing.assert_array_equal(cap, read_cap(folder / "new"))
    assert root == read_header(folder / "new").root


@st.composite
def tables(draw: st.DrawFn) -> tuple[Bytes, Bytes, int, TableLayout | None, TableLayout | None]:
    num_pages = draw(st.integers(1, 90))
    levels = draw(st.integers(0, (num_pages - 1).bit_length()))
    contents = random_pages(num_pages, draw(st.integers(25, 60)))
    indices = sorted(draw(st.sets(st.integers(0, num_pages - 1), max_size=20)))
    after = changed(contents, indices)
    if not draw(st.booleans()):
        return contents, after, levels, None, None
    entries = draw(st.tuples(*[st.integers(1, num_pages)] * 2))
    layouts = [layout_of(contents, levels, count) for count in entries]
    return contents, after, levels, layouts[0], layouts[1]


@settings(max_examples=40, deadline=None)
@given(case=tables(), chunk=st.sampled_from([1, 500, 1 << 20]))
def test_any_two_tables_of_a_shape_have_a_delta(
    case: Any, chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    contents, after, levels, *layouts = case
    folder = tmp_path_factory.mktemp("m")
    old = write_sealed(folder / "old", contents, levels, layouts[0])
    new = write_sealed(folder / "new", after, levels, layouts[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("morphogen.epochs.diff._CHUNK_BYTES", chunk)
        patch.setattr("morphogen.authentication.changes._PART_BYTES", chunk)
        patch.setattr("morphogen.authentication.tree._CHUNK_BYTES", chunk)
        header = diff_tables(old, new, folder / "delta", 0, 1)
        differ = np.flatnonzero((contents != after).any(axis=1))
        assert open_delta(folder / "delta").indices.tolist() == differ.tolist()
        assert header.layout == layouts[1]
        apply_to_table(old, folder / "delta", folder / "result")
        pages, cap, root = apply_to_pages(old, folder / "delta")
    raw = new.read_bytes()
    assert (folder / "result").read_bytes() == raw
    assert raw[4096:] == pages.tobytes() + cap.tobytes()
    assert root == header.root_after
    shutil.rmtree(folder)


def test_fifty_deltas_in_a_chain_are_a_full_rebuild(tmp_path: Path) -> None:
    rng = random.Random(50)
    contents = random_pages(300, 90)
    layout = layout_of(contents, 4, 1)
    first = write_sealed(tmp_path / "0", contents, 4, layout)
    opened = open_table(first, 0)
    assert opened.tree is not None
    pages, cap, root = opened.pages, opened.tree.cap, opened.tree.root
    for epoch in range(1, 51):
        indices = sorted(rng.sample(range(300), rng.choice([0, 1, 2, 10, 50])))
        contents = changed(contents, indices, seed=epoch)
        layout = layout_of(contents, 4, rng.randint(1, 300))
        new, delta = tmp_path / f"{epoch}", tmp_path / f"{epoch}.delta"
        write_sealed(new, contents, 4, layout)
        diff_tables(tmp_path / f"{epoch - 1}", new, delta, epoch - 1, epoch)
        applied = apply_delta(pages, cap, root, open_delta(delta))
        pages, cap, root = applied.pages, applied.changed.cap, applied.changed.root
        apply_to_table(tmp_path / f"{epoch - 1}", delta, tmp_path / "result")
        assert (tmp_path / "result").read_bytes() == new.read_bytes()
    assert (tmp_path / "50").read_bytes()[4096:] == pages.body.tobytes() + cap.tobytes()
    assert (pages.epoch, root) == (50, read_header(tmp_path / "50").root)
    assert pages.mapped
    np.testing.assert_array_equal(opened.pages.body, open_table(first).pages.body)


def test_equal_tables_have_an_empty_delta(folder: Path) -> None:
    header = diff_tables(folder / "new", folder / "new", folder / "none", 7, 8)
    assert (header.count, header.root_before) == (0, header.root_after)
    apply_to_table(folder / "new", folder / "none", folder / "result")
    assert (folder / "result").read_bytes() == (folder / "new").read_bytes()


def test_progress_tells_stages(folder: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    diff_tables(
        folder / "old", folder / "new", folder / "x", 6, 7, lambda *call: calls.append(call)
    )
    assert [call[2] for call in calls if call[0] == call[1]] == ["comparing", "writing"]
    calls.clear()
    apply_to_table(folder / "old", folder / "x", folder / "y", lambda *call: calls.append(call))
    assert [call[2] for call in calls if call[0] == call[1]] == ["checking", "writing"]


# Interruptions


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may have more bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_old_files(folder: Path, small_files: None) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(OSError, match="File too large") as caught:
        apply_to_table(folder / "old", folder / "delta", folder / "new")
    assert caught.value.filename == str(folder / "new")
    with pytest.raises(OSError, match="File too large") as caught:
        diff_tables(folder / "old", folder / "new", folder / "delta", 6, 7)
    assert caught.value.filename == str(folder / "delta")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


KILLED = """
import os, signal, sys
from morphogen.epochs.apply import apply_to_table
from morphogen.epochs.diff import diff_tables

work, stage, old, new, delta = sys.argv[1:]

def kill(done, total, name):
    if name == stage and done:
        os.kill(os.getpid(), signal.SIGKILL)

if work == "apply":
    apply_to_table(old, delta, new, kill)
else:
    diff_tables(old, new, delta, 6, 7, kill)
"""


@pytest.mark.parametrize(
    ("work", "stage"), [("apply", "writing"), ("diff", "comparing"), ("diff", "writing")]
)
def test_a_killed_command_leaves_the_old_files(folder: Path, work: str, stage: str) -> None:
    names = ("old", "new", "delta")
    before = [(folder / name).read_bytes() for name in names]
    arguments = [work, stage, *(str(folder / name) for name in names)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], timeout=PATIENCE)
    assert killed.returncode == -signal.SIGKILL
    assert [(folder / name).read_bytes() for name in names] == before
    # What it leaves is no table and no delta.
    for left in {path.name for path in folder.iterdir()} - set(names):
        assert left.startswith(".morphogen-")
        with pytest.raises((mg.DeltaError, mg.TableFileError)):
            apply_to_table(folder / "old", folder / left, folder / "x")


# Memory


def test_some_pages_of_a_table_are_in_memory_at_a_time(tmp_path: Path) -> None:
    raw = bytearray(random_pages(1, 24 << 20)[0].tobytes())
    (tmp_path / "file").write_bytes(raw)
    seal_file(tmp_path / "file", tmp_path / "old")
    raw[: 12 << 20] = bytes(12 << 20)  # half of all pages
    (tmp_path / "file").write_bytes(raw)
    seal_file(tmp_path / "file", tmp_path / "new")
    write_sealed(tmp_path / "one", random_pages(3, 9), 1)
    diff_tables(tmp_path / "one", tmp_path / "one", tmp_path / "x", 1, 2)  # imports all it needs
    tracemalloc.start()
    diff_tables(tmp_path / "old", tmp_path / "new", tmp_path / "delta", 1, 2)
    apply_to_table(tmp_path / "old", tmp_path / "delta", tmp_path / "result")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 << 20
    assert (tmp_path / "result").read_bytes() == (tmp_path / "new").read_bytes()
