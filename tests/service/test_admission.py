"""What is broken, older, of another shape or not the owner's changes nothing, and is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import morphogen as mg
import morphogen.service.loading as loading
import morphogen.service.opening as opening
from epoch_files import (
    PAGE_SIZE,
    PAGES,
    point,
    replace,
    spoil,
    write_epoch,
    write_manifest,
)
from live_succession import Line, Live, folder, lead, lines
from morphogen.errors import DeviceError
from morphogen.keyword.header import HEADER_BYTES
from morphogen.service.worker import StoppedError

__all__ = ["folder", "lines"]


# What cannot be served


def truncated(folder: Path) -> str:
    path = folder / "words-8.table"
    write_epoch(path, 8)
    replace(path, path.read_bytes()[:-5])
    return "is truncated"


def altered(folder: Path) -> str:
    write_epoch(folder / "words-8.table", 8)
    spoil(folder / "words-8.table", HEADER_BYTES + 5 * PAGE_SIZE)
    return "was altered"


def other_cap(folder: Path) -> str:
    write_epoch(folder / "words-8.table", 8)
    spoil(folder / "words-8.table", HEADER_BYTES + PAGES * PAGE_SIZE)
    return "was altered"


def older(folder: Path) -> str:
    write_epoch(folder / "words-3.table", 3)
    point(folder / "words-8.table", folder / "words-3.table")
    return "is older than what is served: epoch 3, not above 7"


def other_bytes(folder: Path) -> str:
    (folder / "other").mkdir()
    write_epoch(folder / "other" / "words-7.table", 8)
    point(folder / "words-8.table", folder / "other" / "words-7.table")
    return "has other pages than the epoch 7 that is served"


def other_page_size(folder: Path) -> str:
    write_epoch(folder / "words-8.table", 8, page_size=PAGE_SIZE + 64)
    return f"of another shape than what is served: bytes a page: {PAGE_SIZE + 64}, not"


def plain(folder: Path) -> str:
    (folder / "words-8.table").write_bytes(bytes(4096 * 16))
    return "of another shape than what is served"


def nothing(folder: Path) -> str:
    return "No such file or directory"


def no_manifest(folder: Path) -> str:
    write_epoch(folder / "words-8.table", 8)
    (folder / "words-8.manifest").write_bytes(b"x" * 256)
    return "a manifest begins with"


def other_root(folder: Path) -> str:
    write_epoch(folder / "words-8.table", 8)
    write_manifest(folder / "words-8.manifest", 8, root=bytes(32))
    return "the manifest is about the root 0000"


def expired(folder: Path) -> str:
    root = write_epoch(folder / "words-8.table", 8)
    write_manifest(folder / "words-8.manifest", 8, root=root, expires=1_000_000)
    return "expired at 1000000"


@pytest.mark.parametrize(
    "make",
    [
        *(truncated, altered, other_cap, older, other_bytes, other_page_size, plain, nothing),
        *(no_manifest, other_root, expired),
    ],
    ids=lambda make: make.__name__,
)
def test_what_cannot_be_served_is_told_and_changes_nothing(
    folder: Path, make: Callable[[Path], str], lines: list[Line]
) -> None:
    with Live(folder / "current") as live:
        before = live.generations.held
        reason = make(folder)
        lead(folder, "words-8.table")
        for count in (1, 2):
            live.hang_up()
            assert live.generations.held is before
            assert live.metrics.reloads == {"loaded": 0, "unchanged": 0, "refused": count}
        first, second = lines
        assert first == second
        assert (first["event"], first["table"]) == ("reload_refused", "words")
        assert reason in first["reason"]
        live.check(7)
        write_epoch(folder / "words-9.table", 9)
        lead(folder, "words-9.table")
        live.hang_up()
        assert live.epochs == [9, 7]


@pytest.mark.parametrize(
    "error",
    [MemoryError(), DeviceError("the device failed"), OSError(5, "I/O"), KeyError("secret")],
)
def test_whatever_fails_on_the_way_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lines: list[Line], error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with Live(folder / "current") as live:
        write_epoch(folder / "words-8.table", 8)
        lead(folder, "words-8.table")
        opener = opening.open_engine
        monkeypatch.setattr(opening, "open_engine", fail)
        live.hang_up()
        told = {"MemoryError": "MemoryError", "KeyError": "KeyError"}
        assert lines[0]["reason"] == told.get(type(error).__name__, str(error))
        assert live.epochs == [7]
        monkeypatch.setattr(opening, "open_engine", opener)
        live.hang_up()
        assert live.epochs == [8, 7]


def test_an_engine_that_nobody_needs_is_closed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lines: list[Line]
) -> None:
    opened: list[mg.Engine] = []

    def open_engine(*args: Any, **options: Any) -> mg.Engine:
        opened.append(mg.open_engine(*args, **options))
        return opened[-1]

    with Live(folder / "current") as live:
        write_epoch(folder / "words-8.table", 8)
        lead(folder, "words-8.table")
        monkeypatch.setattr(opening, "open_engine", open_engine)
        monkeypatch.setattr(live.generations, "publish", lambda _: pytest.fail("no"), raising=False)
        with pytest.raises(pytest.fail.Exception):
            live.hang_up()
        assert [engine.closed for engine in opened] == [True]


def test_a_load_ends_when_the_server_stops(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = loading.PagesFile.read

    def stop_first(self: loading.PagesFile, progress: Any = None) -> Any:
        live.worker.stop()
        return read(self, progress)

    with Live(folder / "current") as live:
        write_epoch(folder / "words-8.table", 8)
        lead(folder, "words-8.table")
        monkeypatch.setattr(loading.PagesFile, "read", stop_first)
        with pytest.raises(StoppedError):
            live.hang_up()
        assert live.epochs == [7]
        assert live.metrics.reloads["refused"] == 0


# Owners


def test_only_what_the_owner_signed_is_served(folder: Path, lines: list[Line]) -> None:
    root = write_epoch(folder / "words-7.table", 7)
    owner = write_manifest(folder / "words-7.manifest", 7, root=root)
    with Live(folder / "current", owner=owner) as live:
        root = write_epoch(folder / "words-8.table", 8)
        lead(folder, "words-8.table")
        live.hang_up()
        assert "there is no manifest by the owner" in lines[0]["reason"]
        write_manifest(folder / "words-8.manifest", 8, root=root, key=bytes(range(32)))
        live.hang_up()
        assert "the manifest is by the owner" in lines[1]["reason"]
        write_manifest(folder / "words-8.manifest", 8, root=root, table_id=b"another table 12")
        live.hang_up()
        assert "the manifest is about the table" in lines[2]["reason"]
        write_manifest(folder / "words-8.manifest", 8, root=root)
        for byte in range(256):
            spoil(folder / "words-8.manifest", byte)
            live.hang_up()
            spoil(folder / "words-8.manifest", byte)
        assert live.epochs == [7]
        assert live.metrics.reloads["refused"] == len(lines) == 259
        live.hang_up()
        assert live.epochs == [8, 7]
        (epoch,) = [one for one in live.generations.held if one.info.epoch_id == 8]
        assert epoch.info.manifest == (folder / "words-8.manifest").read_bytes().hex()


def test_a_server_does_not_start_with_what_the_owner_did_not_sign(folder: Path) -> None:
    root = write_epoch(folder / "words-7.table", 7)
    with pytest.raises(mg.ManifestError, match=r"words-7\.table: there is no manifest by"):
        Live(folder / "current", owner=write_manifest(folder / "elsewhere", 7, root=root))
    owner = write_manifest(folder / "words-7.manifest", 7, root=root, key=bytes(range(32)))
    with pytest.raises(mg.ManifestError, match=r"words-7\.table: the manifest is by the owner"):
        Live(folder / "current", owner=write_manifest(folder / "elsewhere", 7, root=root))
    with Live(folder / "current", owner=owner) as live:
        assert live.epochs == [7]


def test_the_manifest_says_the_epoch(folder: Path) -> None:
    root = write_epoch(folder / "words-7.table", 7)
    write_manifest(folder / "words-7.manifest", 12, root=root)
    with Live(folder / "current") as live:
        assert live.epochs == [12]
    with pytest.raises(mg.ManifestError, match="about epoch 12, not 5, as was asked for"):
        Live(folder / "current", epoch=5)


def test_a_manifest_beside_plain_pages_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pages.bin").write_bytes(b"x" * 100)
    write_manifest(tmp_path / "pages.manifest", 3, root=bytes(32))
    with pytest.raises(mg.ManifestError, match="and these pages have none"):
        Live(tmp_path / "pages.bin", page_size=10)


def test_a_folder_takes_no_epoch_from_an_option(folder: Path) -> None:
    with pytest.raises(ValueError, match="is a folder, whose files say their epochs"):
        Live(folder, epoch=5)
