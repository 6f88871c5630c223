"""Deltas between table files: made, and applied to pages that are served and to files."""

from __future__ import annotations

import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import morphogen as mg
from delta_format import delta_file
from ended_command import PATIENCE
from morphogen.authentication import root_of_cap
from morphogen.epochs.apply import apply_delta, apply_to_table
from morphogen.epochs.delta import open_delta, write_delta
from morphogen.epochs.diff import diff_tables
from morphogen.keyword import TableLayout
from morphogen.keyword.file import open_table, read_cap, read_header
from morphogen.keyword.sealing import seal_file
from naive import Bytes, random_pages
from sealed_files import layout_of, write_sealed

RECORDED = Path(__file__).resolve().parents[1] / "vectors" / "keyword_v1.table"


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


# Refusals


def refuses(old: Path, delta: Path, message: str) -> None:
    """Neither pages nor files take a delta, and nothing is written."""
    result = old.parent / "result"
    with pytest.raises(mg.DeltaError, match=message):
        apply_to_pages(old, delta)
    before = sorted(path.name for path in old.parent.iterdir())
    with pytest.raises(mg.DeltaError, match=message):
        apply_to_table(old, delta, result)
    assert sorted(path.name for path in old.parent.iterdir()) == before
    shutil.copy(old, result)
    with pytest.raises(mg.DeltaError, match=message):
        apply_to_table(old, delta, result)
    assert result.read_bytes() == old.read_bytes()
    result.unlink()


def test_a_delta_is_not_applied_twice_or_out_of_order(folder: Path) -> None:
    contents = open_table(folder / "new").pages.body[:, :86]
    write_sealed(folder / "newer", changed(contents, [2, 5], seed=3), 2, layout_of(contents, 2, 32))
    diff_tables(folder / "new", folder / "newer", folder / "delta2", 7, 8)
    roots = {
        name: (read_header(folder / name).root or b"").hex() for name in ("old", "new", "newer")
    }
    for table, delta, wanted in (
        ("new", "delta", "old"),
        ("newer", "delta", "old"),
        ("old", "delta2", "new"),
        ("newer", "delta2", "new"),
    ):
        message = f"{delta} is for the table with the root {roots[wanted]}, not {roots[table]}$"
        refuses(folder / table, folder / delta, message)


def test_a_delta_is_not_applied_to_a_table_of_another_shape(folder: Path) -> None:
    contents = random_pages(20, 86)
    write_sealed(folder / "other", contents, 2, layout_of(contents, 2, 30))
    message = "delta is for a table of 19 pages of 150 bytes, not 20 of 150$"
    refuses(folder / "other", folder / "delta", message)
    contents = random_pages(19, 118)
    write_sealed(folder / "other", contents, 1, layout_of(contents, 1, 30))
    refuses(folder / "other", folder / "delta", "delta is for the table with the root ")


def rewritten(folder: Path, **changes: Any) -> None:
    """Write the delta anew, by somebody who knows how, with something else in it."""
    delta = open_delta(folder / "delta")
    fields = {
        name: getattr(delta.header, name)
        for name in delta.header.__slots__
        if name not in ("count", "digest")
    }
    fields |= {"indices": delta.indices, "contents": delta.contents}
    write_delta(folder / "delta", **(fields | changes))


@pytest.mark.parametrize("what", ["content", "index", "missing", "layout", "root", "kind"])
def test_a_delta_that_leads_to_another_root_is_refused(folder: Path, what: str) -> None:
    delta = open_delta(folder / "delta")
    indices, contents = delta.indices.copy(), delta.contents.copy()
    layout = delta.header.layout
    assert layout is not None
    if what == "content":
        contents[2, 40] ^= 1
        rewritten(folder, contents=contents)
    elif what == "index":
        indices[1] = 4
        rewritten(folder, indices=indices)
    elif what == "missing":
        rewritten(folder, indices=indices[1:], contents=contents[1:])
    elif what == "layout":
        rewritten(folder, layout=replace(layout, entries=29))
    elif what == "root":
        rewritten(folder, root_after=bytes(32))
    else:
        rewritten(folder, layout=None)
    message = "delta leads to another root than it says, "
    if what == "kind":
        message += "|delta has keys and .*old has none, or the reverse"
    refuses(folder / "old", folder / "delta", message)


def test_an_altered_page_is_not_carried_into_the_next_epoch(folder: Path) -> None:
    with (folder / "old").open("r+b") as file:
        file.seek(4096 + 10 * 150)
        file.write(b"?")
    with pytest.raises(mg.DeltaError, match="it is wrong, or a page before was altered"):
        apply_to_table(folder / "old", folder / "delta", folder / "result")
    assert not (folder / "result").exists()


def test_tables_without_a_root_are_refused_with_the_way_out(folder: Path) -> None:
    plain = folder / "plain"
    plain.write_bytes(bytes(5000))
    for table, message in (
        (RECORDED, "is a table of version 1, which has no root: morphogen table seal makes one"),
        (plain, "plain is no table: morphogen table seal makes one of a file"),
    ):
        for call in (
            lambda path=table: apply_to_table(path, folder / "delta", folder / "x"),
            lambda path=table: diff_tables(path, folder / "new", folder / "x", 1, 2),
            lambda path=table: diff_tables(folder / "old", path, folder / "x", 1, 2),
        ):
            with pytest.raises(mg.DeltaError, match=message):
                call()
    assert not (folder / "x").exists()
    seal_file(RECORDED, folder / "sealed")
    diff_tables(folder / "sealed", folder / "sealed", folder / "x", 1, 2)


def test_tables_between_which_there_is_no_delta(folder: Path) -> None:
    for contents, levels, keys in (
        (random_pages(20, 86), 2, True),
        (random_pages(19, 118), 1, True),
        (random_pages(19, 85), 2, True),
        (random_pages(19, 86), 2, False),
    ):
        layout = layout_of(contents, levels, 30) if keys else None
        other = write_sealed(folder / "other", contents, levels, layout)
        described = (
            f"{len(contents)} pages of {contents.shape[1] + 32 * levels} bytes with {levels} proof "
            f"levels, {'with' if keys else 'without'} keys"
        )
        ours = "19 pages of 150 bytes with 2 proof levels, with keys"
        message = f"there is no delta between {folder / 'old'}, {ours}, and {other}, {described}"
        with pytest.raises(mg.DeltaError, match=f"^{re.escape(message)}$"):
            diff_tables(folder / "old", other, folder / "x", 1, 2)


def test_an_altered_table_has_no_delta(folder: Path) -> None:
    raw = (folder / "new").read_bytes()
    altered = folder / "altered"
    for page, message in (
        (1, "altered was altered: its cap is not that of its pages"),  # beside a page that changes
        (5, "altered was altered: its cap is not that of its pages"),
        (10, "altered was altered: its cap is not that of its pages"),  # looks like a change
    ):
        at = 4096 + page * 150
        altered.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(mg.TableFileError, match=message):
            diff_tables(folder / "old", altered, folder / "x", 6, 7)
    altered.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(mg.TableFileError, match="its cap does not have the root of its header"):
        diff_tables(folder / "old", altered, folder / "x", 6, 7)
    # Whose hashes are of one table and whose contents are of the other.
    size = 4096 + 19 * 150
    old = (folder / "old").read_bytes()
    altered.write_bytes(raw[:4096] + old[4096:size] + raw[size:])
    with pytest.raises(mg.DeltaError, match="was altered: other hashes of the same contents"):
        diff_tables(folder / "old", altered, folder / "x", 6, 7)
    assert not (folder / "x").exists()


def test_epochs_are_checked_before_any_file_is_read(tmp_path: Path) -> None:
    none = tmp_path / "none"
    for epochs, error in (((7, 7), ValueError), ((-1, 7), ValueError), (("6", 7), TypeError)):
        with pytest.raises(error, match="epoch"):
            diff_tables(none, none, none, *epochs)


def test_a_cap_of_another_table_is_refused(folder: Path) -> None:
    opened, delta = open_table(folder / "old"), open_delta(folder / "delta")
    assert opened.tree is not None
    root = opened.tree.root
    with pytest.raises(ValueError, match=r"^cap must have shape \(5, 32\), not \(4, 32\)$"):
        apply_delta(opened.pages, opened.tree.cap[:4], root, delta)
    wrong = opened.tree.cap.copy()
    wrong[3] ^= 1  # of pages that do not change
    assert root_of_cap(wrong, 19, 150, 2) != root
    with pytest.raises(mg.DeltaError, match="leads to another root than it says"):
        apply_delta(opened.pages, wrong, root, delta)


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
