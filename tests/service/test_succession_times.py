"""An epoch that its owner dates is served when its time comes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import morphogen.service.loading as loading
from epoch_files import replace, write_epoch, write_manifest
from live_succession import Line, Live, folder, lead, lines

__all__ = ["folder", "lines"]


def test_an_epoch_is_loaded_at_once_and_served_when_its_time_comes(
    folder: Path, lines: list[Line]
) -> None:
    with Live(folder / "current") as live:
        root = write_epoch(folder / "words-8.table", 8)
        write_manifest(folder / "words-8.manifest", 8, root=root, activate_at=2000)
        lead(folder, "words-8.table")
        live.hang_up()
        assert live.epochs == [7]
        assert live.succession.seconds_left() == 1000
        (line,) = lines
        assert (line["event"], line["epoch"], line["activate_at"]) == ("reload_waits", 8, 2000)
        (folder / "words-8.table").unlink()
        live.pass_time(1999.5)
        assert live.epochs == [7]
        live.pass_time(2000)
        assert live.epochs == [8, 7]
        assert live.generations.current.info.manifest is not None
        live.check(8)
        assert live.succession.seconds_left() is None


def test_what_waits_is_not_read_again_and_something_newer_supersedes_it(
    folder: Path, lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Live(folder) as live:
        root = write_epoch(folder / "words-8.table", 8)
        write_manifest(folder / "words-8.manifest", 8, root=root, activate_at=2000)
        live.hang_up()
        (folder / "words-3.table").write_bytes(b"x")  # which does not matter
        with monkeypatch.context() as patched:
            patched.setattr(loading.PagesFile, "read", lambda *_: pytest.fail("it was read"))
            live.hang_up()
        assert live.succession.seconds_left() == 1000
        write_epoch(folder / "words-9.table", 9)
        live.hang_up()
        assert live.epochs == [9, 7]
        assert live.succession.seconds_left() is None
        live.pass_time(3000)
        assert live.epochs == [9, 7]


def test_epochs_that_wait_come_one_after_the_other(folder: Path) -> None:
    with Live(folder) as live:
        for epoch, time in ((8, 2000), (9, 3000), (10, 0)):
            root = write_epoch(folder / f"words-{epoch + 1}.table", epoch + 1)
            write_manifest(
                folder / f"words-{epoch + 1}.manifest", epoch + 1, root=root, activate_at=time
            )
        (folder / "words-11.table").unlink()
        live.hang_up()
        assert (live.epochs, live.succession.seconds_left()) == ([7], 1000)
        live.pass_time(2000)
        assert (live.epochs, live.succession.seconds_left()) == ([9, 7], 1000)
        live.pass_time(3000)
        assert (live.epochs, live.succession.seconds_left()) == ([10, 9], None)
        live.check(10)


def test_what_is_taken_away_before_its_time_is_not_served(folder: Path, lines: list[Line]) -> None:
    with Live(folder / "current") as live:
        root = write_epoch(folder / "words-8.table", 8)
        write_manifest(folder / "words-8.manifest", 8, root=root, activate_at=2000)
        lead(folder, "words-8.table")
        live.hang_up()
        replace(folder / "words-8.table", b"broken")
        live.hang_up()  # what was verified is served all the same
        assert live.succession.seconds_left() == 1000
        lead(folder, "words-7.table")
        live.hang_up()
        assert live.succession.seconds_left() is None
        assert [line["event"] for line in lines] == [
            *("reload_waits", "reload_refused", "reload_withdrawn")
        ]


def test_a_server_that_starts_before_the_time_serves_what_is_due(folder: Path) -> None:
    root = write_epoch(folder / "words-8.table", 8)
    write_manifest(folder / "words-8.manifest", 8, root=root, activate_at=2**40)
    with Live(folder) as live:
        assert live.epochs == [7]
        asyncio.run(live.succession.begin())
        assert live.succession.seconds_left() is not None
        live.pass_time(2**40)
        assert live.epochs == [8, 7]
    lead(folder, "words-8.table")
    with Live(folder / "current") as live:  # there is nothing else
        assert live.epochs == [8]
        asyncio.run(live.succession.begin())
        assert live.succession.seconds_left() is None
