"""The sealing of files and of tables of version 1: what is written, and what is refused."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

import keyword_format as fmt
import morphogen as mg
from keyword_tables import opened
from morphogen.authentication import root_of_cap
from morphogen.keyword.file import open_table, read_cap
from morphogen.keyword.sealing import seal_file

RECORDED = Path(__file__).resolve().parents[1] / "vectors" / "keyword_v1.table"


def sealed_by_hand(content: bytes, page_size: int, levels: int) -> bytes:
    size = page_size - 32 * levels
    pages = [content[at : at + size].ljust(size, b"\0") for at in range(0, len(content), size)]
    return fmt.sealed_file(None, pages, levels)


@pytest.mark.parametrize(
    ("length", "page_size", "levels"),
    [(1, 64, 0), (1000, 64, 0), (999, 64, 1), (1000, 128, 3), (1001, 101, 3), (5000, 300, 6)],
)
def test_a_sealed_file_is_what_the_document_says(
    length: int, page_size: int, levels: int, tmp_path: Path, chunk_bytes: int
) -> None:
    content = random.Random(length).randbytes(length)
    (tmp_path / "file").write_bytes(content)
    header = seal_file(tmp_path / "file", tmp_path / "table", page_size, levels)
    assert (tmp_path / "table").read_bytes() == sealed_by_hand(content, page_size, levels)
    found = open_table(tmp_path / "table")
    assert found.header == header
    assert found.layout is None
    assert found.tree is not None
    size = page_size - 32 * levels
    assert found.pages.body[:, :size].tobytes()[:length] == content


@pytest.mark.parametrize(
    ("length", "page_size", "levels"),
    [(1, None, 0), (5000, None, 1), (10**6, None, 4), (10**5, 64, 0), (10**5, 600, 2)],
)
def test_proof_levels_that_nobody_asked_for(
    length: int, page_size: int | None, levels: int, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(length))
    header = seal_file(tmp_path / "file", tmp_path / "table", page_size)
    assert (header.page_size, header.proof_levels) == (page_size or 4096, levels)
    assert open_table(tmp_path / "table").header == header


def test_a_keyword_table_of_version_1_is_sealed_as_it_is(tmp_path: Path) -> None:
    old, layout = opened(RECORDED)
    header = seal_file(RECORDED, tmp_path / "new")
    matrix, found = opened(tmp_path / "new")
    assert (found.version, found.fragments, found.proof_levels) == (2, 1, 0)
    assert found.as_dict().items() >= (layout.as_dict() | {"version": 2}).items()
    assert (matrix.body == old.body).all()
    cap = read_cap(tmp_path / "new")
    assert header.root == root_of_cap(cap, len(old), 96, 0, found.authenticated_bytes())
    with pytest.raises(mg.TableFileError, match="is a table of version 1, which has no cap"):
        read_cap(RECORDED)


def test_an_altered_table_of_version_1_is_not_sealed(tmp_path: Path) -> None:
    raw = RECORDED.read_bytes()
    (tmp_path / "old").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(mg.TableFileError, match="old was altered: its pages do not have the SHA"):
        seal_file(tmp_path / "old", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_sealed(tmp_path: Path) -> None:
    file, empty = tmp_path / "file", tmp_path / "empty"
    file.write_bytes(bytes(500))
    empty.write_bytes(b"")
    target, path = tmp_path / "target", tmp_path / "table"
    seal_file(RECORDED, path)
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((path, target), "table is sealed already"),
        ((RECORDED, target, 100), "page_size must be 96, that of the keyword table, not 100"),
        ((RECORDED, target, None, 1), "proof_levels must be 0 for a keyword table that was built"),
        ((file, target, 0), "page_size must be in 1..2**40, not 0"),
        ((file, target, 64, 2), "proof_levels must be in 0..1 for pages of 64, not 2"),
        ((file, target, 64, -1), "proof_levels must be in 0..1 for pages of 64, not -1"),
        ((file, target, 4096, 1), "proof_levels must be in 0..0, not 1"),
        ((empty, target), "empty has 0"),
        ((file, tmp_path), "a table is written to a file"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=re.escape(message)):
            seal_file(*arguments)
    with pytest.raises(FileNotFoundError):
        seal_file(tmp_path / "none", target)
    with pytest.raises(IsADirectoryError):
        seal_file(tmp_path, target)
    assert not target.exists()


def test_an_interruption_or_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "table"
    before = RECORDED.read_bytes()
    path.write_bytes(before)
    (tmp_path / "file").write_bytes(bytes(5000))

    for error in (KeyboardInterrupt(), OSError(28, "No space left on device")):

        def fail(done: int, total: int, error: BaseException = error) -> None:
            if done:
                raise error

        with pytest.raises(type(error)):
            seal_file(tmp_path / "file", path, 100, progress=fail)
        assert path.read_bytes() == before
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "table"]
