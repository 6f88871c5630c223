"""Files are written whole or not at all, under any name, and errors name them."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from morphogen.keyword.atomic_file import NewFile, replace_file

LONG_NAMES = {
    "80 Japanese letters": "\u8868" * 80,
    "120 letters of 2 bytes": "\u00e9" * 120,
    "255 letters": "x" * 255,
    "255 bytes of 3 each": "\u8868" * 85,
}


def write(path: Path | NewFile, content: bytes = b"new") -> None:
    with replace_file(path) as file:
        file.write(content)


@pytest.mark.parametrize("name", LONG_NAMES.values(), ids=LONG_NAMES)
def test_any_name_that_a_file_may_have(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    write(tmp_path / name, b"newer")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"newer"


def test_a_name_that_no_file_may_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long") as caught:
        write(tmp_path / ("x" * 256))
    assert Path(caught.value.filename).name == "x" * 256


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file of this process may have more bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    yield 10_000
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_that_is_too_large_is_named(tmp_path: Path, small_files: int) -> None:
    path = tmp_path / "table"
    with pytest.raises(OSError, match="File too large") as caught:
        write(path, bytes(small_files + 1))
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_the_user_s_name_is_named_not_the_temporary_one(
    tmp_path: Path, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*names: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", *map(str, names[: len(names) - 1]))

    monkeypatch.setattr(os, function, full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path / "table")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "table"), None)
    assert list(tmp_path.iterdir()) == []


def failing_for_folders(number: int, call: Callable[[int], None]) -> Callable[[int], None]:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        call(descriptor)

    return fsync


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_is_complete_though_its_folder_cannot_be_synchronised(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing_for_folders(number, os.fsync))
    write(tmp_path / "table")
    assert (tmp_path / "table").read_bytes() == b"new"


def test_a_file_is_complete_though_its_folder_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, flags: int, *rest: Any, real: Any = os.open) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        descriptor: int = real(path, flags, *rest)
        return descriptor

    monkeypatch.setattr(os, "open", refuse)
    write(tmp_path / "table")
    assert (tmp_path / "table").read_bytes() == b"new"


def test_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing_for_folders(errno.EIO, os.fsync))
    with pytest.raises(OSError, match="Input/output error") as caught:
        write(tmp_path / "table")
    assert caught.value.filename == str(tmp_path / "table")


def test_an_exception_of_the_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with replace_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [entry.name for entry in tmp_path.iterdir()] == ["table"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("folder", ["none", "file"])
def test_a_folder_that_is_none_is_not_named_by_the_temporary_name(
    tmp_path: Path, folder: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=f"{folder}/table'$"):
        write(tmp_path / folder / "table")


# A file that must be new


@pytest.fixture(params=["hard links", "no hard links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", *names)

    if request.param == "no hard links":
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("links")
def test_a_new_file_is_written_where_there_is_none(tmp_path: Path) -> None:
    with replace_file(NewFile(tmp_path / "table"), mode=0o640) as file:
        file.write(b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["table"]
    assert (tmp_path / "table").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "table").stat().st_mode) == 0o640


@pytest.mark.usefixtures("links")
def test_of_two_that_write_a_new_file_the_second_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table"

    def write_second() -> None:
        with replace_file(NewFile(path)) as second:
            second.write(b"second")
            with replace_file(NewFile(path)) as first:
                first.write(b"first")

    with pytest.raises(FileExistsError) as caught:
        write_second()
    assert (caught.value.filename, caught.value.filename2) == (str(path), None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["table"]
    assert path.read_bytes() == b"first"


def test_a_new_file_that_cannot_be_written_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*names: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", *map(str, names))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(NewFile(tmp_path / "table"))
    assert caught.value.filename == str(tmp_path / "table")
    assert list(tmp_path.iterdir()) == []
