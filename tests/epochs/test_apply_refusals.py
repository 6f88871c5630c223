"""Deltas that a table does not take: neither its served pages nor its file."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import morphogen as mg
from applied_deltas import apply_to_pages, changed, folder
from morphogen.authentication import root_of_cap
from morphogen.epochs.apply import apply_delta, apply_to_table
from morphogen.epochs.delta import open_delta, write_delta
from morphogen.epochs.diff import diff_tables
from morphogen.keyword.file import open_table, read_header
from morphogen.keyword.sealing import seal_file
from naive import random_pages
from sealed_files import layout_of, write_sealed

__all__ = ["folder"]

RECORDED = Path(__file__).resolve().parents[1] / "vectors" / "keyword_v1.table"


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
