"""The keyword table's file: written whole or not at all, refused when one byte is another."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keyword_format as fmt
import morphogen as mg
import morphogen.keyword.file as table_file
from keyword_tables import build_version_1, numbered, opened, plain
from morphogen.keyword import TableLayout
from morphogen.keyword.file import (
    HEADER_BYTES,
    MAGIC,
    is_table,
    open_table,
    read_header,
    write_table,
)
from naive import Bytes

SEED = bytes(range(0x11, 0x21))


@pytest.fixture(scope="module")
def table() -> tuple[Bytes, TableLayout]:
    return build_version_1(numbered(60, 9), page_size=100, seed=SEED)


@pytest.fixture
def path(tmp_path: Path, table: tuple[Bytes, TableLayout]) -> Path:
    """The file of that table."""
    path = tmp_path / "table"
    write_table(path, *table)
    return path


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def resealed(raw: bytes) -> bytes:
    """The same file with a header that says its own SHA-256: by somebody who knows how."""
    sealed = raw[: HEADER_BYTES - 32]
    return sealed + hashlib.sha256(sealed).digest() + raw[HEADER_BYTES:]


def put(path: Path, at: int, byte: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([byte]))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# Contents


def test_the_file_is_what_the_document_says(path: Path, table: tuple[Bytes, TableLayout]) -> None:
    pages, layout = table
    assert path.read_bytes() == fmt.table_file(plain(layout), [row.tobytes() for row in pages])


@pytest.mark.parametrize("epoch", [-1, 2**63])
def test_a_table_of_an_epoch_that_no_server_can_announce(path: Path, epoch: int) -> None:
    with pytest.raises(ValueError, match=rf"^epoch must be in 0\.\.2\*\*63 - 1, not {epoch}$"):
        open_table(path, epoch)


def test_a_table_there_and_back(path: Path, table: tuple[Bytes, TableLayout]) -> None:
    matrix, layout = opened(path, 7)
    assert layout == table[1]
    assert (matrix.num_pages, matrix.page_size, matrix.epoch) == (layout.num_pages, 100, 7)
    assert matrix.tail is None
    assert (matrix.body == table[0]).all()
    assert not matrix.body.flags.writeable
    assert "mapped" in repr(matrix)
    header = read_header(path)
    assert (header.layout, header.digest) == (layout, hashlib.sha256(table[0].tobytes()).digest())


def test_writing_says_what_was_written(path: Path, table: tuple[Bytes, TableLayout]) -> None:
    assert write_table(path, *table) == read_header(path)


def test_which_files_are_tables(path: Path, tmp_path: Path) -> None:
    assert is_table(path)
    for name, content in (
        ("empty", b""),
        ("key", b"MGK1" * 30),
        ("text", b"a text of a few words"),
    ):
        (tmp_path / name).write_bytes(content)
        assert not is_table(tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    for damaged in (b"\0" + MAGIC[1:], MAGIC[:-1] + b"\0", MAGIC.replace(b"\r\n", b"\n")):
        (tmp_path / "damaged").write_bytes(damaged + path.read_bytes()[len(MAGIC) :])
        assert is_table(tmp_path / "damaged")
        with pytest.raises(mg.TableFileError, match="is not a keyword table"):
            open_table(tmp_path / "damaged")
    assert not is_table(tmp_path / "pipe")
    assert not is_table(tmp_path)
    with pytest.raises(FileNotFoundError):
        is_table(tmp_path / "none")


def test_progress_counts_bytes(
    path: Path, table: tuple[Bytes, TableLayout], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_file, "_BLOCK", 1000)
    calls: list[tuple[int, int]] = []
    pages, layout = open_table(path, progress=lambda *call: calls.append(call)).pages, table[1]
    total = pages.nbytes
    assert calls == [(done, total) for done in [*range(0, total, 1000), total]]
    told, calls[:] = list(calls), []
    write_table(path, pages.body, layout, progress=lambda *call: calls.append(call))
    assert calls == told
    assert read_header(path).digest == hashlib.sha256(pages.body.tobytes()).digest()


# Refusals


def test_every_altered_byte_of_the_header_is_refused(path: Path) -> None:
    raw = path.read_bytes()
    for at in range(HEADER_BYTES):
        put(path, at, raw[at] ^ 1 << at % 8)
        with pytest.raises(mg.TableFileError):
            read_header(path)
        if at % 64 == 0:
            with pytest.raises(mg.TableFileError, match=r"not a keyword table|was altered"):
                open_table(path, verify=False)
        put(path, at, raw[at])


def test_every_altered_byte_of_the_pages_is_refused(path: Path) -> None:
    raw = path.read_bytes()
    for at in range(HEADER_BYTES, len(raw)):
        put(path, at, raw[at] ^ 1 << at % 8)
        with pytest.raises(mg.TableFileError, match="table was altered: its pages do not have"):
            open_table(path)
        put(path, at, raw[at])


def test_who_trusts_the_pages_need_not_read_them(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    pages = open_table(path, verify=False).pages
    assert pages[pages.num_pages - 1][-1] == raw[-1]


def boundaries() -> list[int]:
    fields = [0, 1, 7, 8, 12, 16, 24, 32, 40, 48, 56, 72, 104, 4064, 4095, 4096, 4097]
    pages = [HEADER_BYTES + page * 100 + byte for page in range(1, 17) for byte in (-1, 0, 1)]
    return [*fields, *pages]


@pytest.mark.parametrize("verify", [False, True])
def test_a_truncated_file_is_refused(path: Path, verify: bool) -> None:
    raw = path.read_bytes()
    lengths = sorted({at for at in boundaries() if at < len(raw)} | {len(raw) - 1})
    assert lengths[-1] > HEADER_BYTES + 1000
    for length in lengths:
        path.write_bytes(raw[:length])
        message = "is not a keyword table" if length < 8 else "is truncated: "
        with pytest.raises(mg.TableFileError, match=message):
            open_table(path, verify=verify)


def test_a_longer_file_is_refused(path: Path) -> None:
    raw = path.read_bytes()
    for more in (b"\0", bytes(100)):
        path.write_bytes(raw + more)
        with pytest.raises(mg.TableFileError, match=f"is too long: {len(raw) + len(more)} bytes "):
            open_table(path, verify=False)


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (8, "<I", 3, "version 3 of the format"),
        (12, "<I", 8192, "a header of 8192 bytes"),
        (16, "<Q", 0, "num_pages must be in 1"),
        (16, "<Q", 2**64 - 1, "num_pages must be in 1"),
        (16, "<Q", 2**40, "is truncated"),
        (24, "<Q", 2**63, "page_size must be in 1"),
        (32, "<Q", 0, "slots_per_page must be in 1"),
        (32, "<Q", 99, "slots_per_page must be at most 3"),
        (40, "<Q", 2**32, "value_size must be in 0"),
        (48, "<Q", 10**6, "entries must be in 1"),
        (104, "<Q", 1, "unused bytes are not zero"),
        (4063, "<B", 1, "unused bytes are not zero"),
    ],
)
def test_a_well_sealed_header_of_nonsense_is_refused(
    path: Path, offset: int, form: str, value: int, message: str
) -> None:
    raw = bytearray(path.read_bytes())
    struct.pack_into(form, raw, offset, value)
    path.write_bytes(resealed(bytes(raw)))
    with pytest.raises(mg.TableFileError, match=message):
        open_table(path, verify=False)


def test_what_is_no_file(tmp_path: Path) -> None:
    for call in (open_table, read_header):
        with pytest.raises(FileNotFoundError, match="none"):
            call(tmp_path / "none")
        with pytest.raises(IsADirectoryError):
            call(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(mg.TableFileError, match="pipe is a pipe, not a keyword table"):
        open_table(tmp_path / "pipe")
    with pytest.raises(mg.TableFileError, match="/dev/zero is a character device, not a keyword"):
        open_table("/dev/zero")


# Writing


def test_a_file_is_replaced_and_those_who_have_it_keep_it(path: Path) -> None:
    old, layout = opened(path)
    content = old.body.copy()
    pages, other = build_version_1(numbered(10, 3), page_size=64)
    write_table(path, pages, other)
    assert open_table(path).layout == other != layout
    assert (old.body == content).all()
    assert [entry.name for entry in path.parent.iterdir()] == ["table"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(
    tmp_path: Path, table: tuple[Bytes, TableLayout], umask: Callable[[int], int], mask: int
) -> None:
    umask(mask)
    write_table(tmp_path / "table", *table)
    assert stat.S_IMODE((tmp_path / "table").stat().st_mode) == 0o666 & ~mask


def test_a_link_stays_a_link(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to("table")
    pages, layout = build_version_1(numbered(10, 3), page_size=64)
    write_table(link, pages, layout)
    assert link.is_symlink()
    assert open_table(path).layout == layout


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_failure_changes_nothing(
    path: Path, there: bool, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing fails as on a full disk; the old file is still there."""
    before = path.read_bytes()
    if not there:
        path.unlink()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    pages, layout = build_version_1(numbered(10, 3), page_size=64)
    before_it = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(OSError, match="No space left on device"):
            write_table(path, pages, layout)
    assert open_files() == before_it
    assert [entry.name for entry in path.parent.iterdir()] == (["table"] if there else [])
    assert not there or path.read_bytes() == before


def test_an_interruption_changes_nothing(path: Path, table: tuple[Bytes, TableLayout]) -> None:
    before = path.read_bytes()

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table(path, *build_version_1(numbered(10, 3), page_size=64), progress=interrupt)
    assert [entry.name for entry in path.parent.iterdir()] == ["table"]
    assert path.read_bytes() == before


def test_the_file_takes_its_place_when_it_is_whole_and_on_the_disk(
    path: Path, table: tuple[Bytes, TableLayout], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    replace, fsync = os.replace, os.fsync

    def recorded_replace(source: Any, target: Any) -> None:
        steps.append("replace")
        assert Path(source).parent == Path(target).parent
        assert open_table(source).layout == table[1]
        replace(source, target)

    def recorded_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        steps.append("sync the folder" if is_folder else "sync the file")
        fsync(descriptor)

    monkeypatch.setattr(os, "replace", recorded_replace)
    monkeypatch.setattr(os, "fsync", recorded_fsync)
    write_table(path, *table)
    assert steps == ["sync the file", "replace", "sync the folder"]


def test_a_file_that_was_not_written_to_its_end_is_no_table(
    path: Path, table: tuple[Bytes, TableLayout], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by its name nor as plain pages: a killed process leaves the temporary file."""
    left: list[bytes] = []

    def keep(source: Path, target: Path) -> None:
        left.append(Path(source).read_bytes())
        Path(target).write_bytes(left[0])

    monkeypatch.setattr(table_file, "pack_header", lambda header: b"")
    monkeypatch.setattr(Path, "replace", keep)
    write_table(path, *table)
    assert is_table(path)
    with pytest.raises(mg.TableFileError, match=r"table was not written to its end$"):
        open_table(path)


def test_only_files_are_written(tmp_path: Path, table: tuple[Bytes, TableLayout]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match=f"written to a file, which {place} is not"):
            write_table(place, *table)
    with pytest.raises(FileNotFoundError, match=r"/none/table'$"):
        write_table(tmp_path / "none" / "table", *table)


def test_the_array_must_be_the_layouts(path: Path, table: tuple[Bytes, TableLayout]) -> None:
    pages, layout = table
    with pytest.raises(ValueError, match="array must have the layout's shape"):
        write_table(path, pages[1:], layout)
    with pytest.raises(TypeError, match="array must have dtype uint8"):
        write_table(path, pages.astype(np.int8), layout)
    with pytest.raises(ValueError, match="array must be C-contiguous"):
        write_table(path, np.asfortranarray(pages), layout)
