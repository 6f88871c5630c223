"""A table goes on from epoch to epoch, when it is told to and by itself."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
import morphogen.service.loading as loading
import morphogen.service.opening as opening
import morphogen.service.worker as worker
from epoch_files import (
    LEVELS,
    PAGE_SIZE,
    PAGES,
    contents_of,
    replace,
    sealed_pages,
    spoil,
    write_delta,
    write_epoch,
)
from live_succession import Line, Live, folder, lead, lines
from morphogen.authentication import seal_pages
from morphogen.errors import DeviceOutOfMemoryError
from morphogen.keyword.header import HEADER_BYTES
from morphogen.keyword.sealing import seal_file
from morphogen.service.comparing import differing_pages
from standin_driver import StandIn

__all__ = ["folder", "lines"]


# A link


def test_a_link_to_the_next_epoch_is_taken_up(folder: Path, lines: list[Line]) -> None:
    with Live(folder / "current") as live:
        write_epoch(folder / "words-8.table", 8)
        lead(folder, "words-8.table")
        live.hang_up()
        assert live.epochs == [8, 7]
        live.check(7)
        live.check(8)
        (line,) = lines
        told = (line["event"], line["table"], line["from_epoch"], line["to_epoch"])
        assert told == ("reloaded", "words", 7, 8)
        differ = (sealed_pages(7) != sealed_pages(8)).any(axis=1).sum()
        assert line["pages_changed"] == live.metrics.pages_changed["words"] == differ
        assert live.metrics.reloads == {"loaded": 1, "unchanged": 0, "refused": 0}


def test_only_who_asks_is_told_that_nothing_changed(folder: Path, lines: list[Line]) -> None:
    with Live(folder / "current") as live:
        assert not live.look()
        asyncio.run(live.succession.take_up())
        assert lines == []
        live.hang_up()
        assert lines == [{"event": "reload_unchanged", "table": "words", "epoch": 7}]
        assert live.metrics.reloads["unchanged"] == 1


def test_the_same_table_is_not_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lines: list[Line]
) -> None:
    with Live(folder / "current") as live:
        replace(folder / "words-7.table", (folder / "words-7.table").read_bytes())
        read = loading.PagesFile.read
        monkeypatch.setattr(loading.PagesFile, "read", lambda *_: pytest.fail("it was read"))
        live.hang_up()
        monkeypatch.setattr(loading.PagesFile, "read", read)
        assert lines[-1]["event"] == "reload_unchanged"


def test_a_file_without_a_number_counts_its_epochs_where_its_pages_differ(tmp_path: Path) -> None:
    path = tmp_path / "words.table"
    write_epoch(path, 1)
    with Live(path, epoch=5) as live:
        for number, epochs in ((1, [5]), (2, [6, 5]), (2, [6, 5]), (3, [7, 6])):
            write_epoch(path, number)
            live.hang_up()
            assert live.epochs == epochs
            live.check(epochs[0], sealed_pages(number))
        assert live.metrics.reloads == {"loaded": 2, "unchanged": 2, "refused": 0}


def test_plain_pages_are_compared_by_their_digest(tmp_path: Path, lines: list[Line]) -> None:
    path = tmp_path / "pages.bin"
    path.write_bytes(contents_of(1).tobytes()[:-1])  # the last page is short
    with Live(path, page_size=contents_of(1).shape[1]) as live:
        replace(path, contents_of(1).tobytes()[:-1])
        live.hang_up()
        replace(path, contents_of(2).tobytes())
        live.hang_up()
        assert [line["event"] for line in lines] == ["reload_unchanged", "reloaded"]
        padded = contents_of(1)
        padded[-1, -1] = 0
        differ = (padded != contents_of(2)).any(axis=1)
        assert lines[1]["pages_changed"] == differ.sum()
        assert (lines[1]["from_epoch"], lines[1]["to_epoch"], lines[1]["root"]) == (0, 1, None)
        live.check(1, contents_of(2))


def test_the_number_of_pages_may_change(folder: Path) -> None:
    with Live(folder / "current") as live:
        write_epoch(folder / "words-8.table", 8, pages=3 * PAGES)
        lead(folder, "words-8.table")
        live.hang_up()
        live.check(7)
        assert live.generations.current.info.num_pages == 3 * PAGES
        assert live.metrics.pages_changed["words"] == 3 * PAGES


# Watching


def test_a_change_is_seen_once_it_stays(folder: Path, lines: list[Line]) -> None:
    with Live(folder / "current") as live:
        path = folder / "words-8.table"
        path.write_bytes(b"begun")
        lead(folder, "words-8.table")
        assert not live.look()
        path.write_bytes(b"and going on")
        assert not live.look()
        assert live.look()
        asyncio.run(live.succession.take_up())
        assert len(lines) == 1
        assert not live.look()  # it failed, and is as it was
        path.write_bytes(b"another")
        assert not live.look()
        assert live.look()


def test_a_look_for_which_there_is_no_thread_is_put_off(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lines: list[Line]
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with Live(folder / "current") as live:
        write_epoch(folder / "words-8.table", 8)
        lead(folder, "words-8.table")
        with monkeypatch.context() as patched:
            patched.setattr(worker, "start_thread", refuse)
            assert not live.look()
            live.hang_up()
        assert [line["event"] for line in lines] == ["reload_refused"]
        live.hang_up()
        assert live.epochs == [8, 7]


# Folders


def test_a_folder_goes_on_by_the_deltas_that_lead_highest(
    folder: Path, lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Live(folder) as live:
        for epoch in (8, 9, 10):
            write_delta(folder / f"{epoch}.delta", epoch - 1, epoch)
        monkeypatch.setattr(loading.PagesFile, "read", lambda *_: pytest.fail("all was read"))
        live.hang_up()
        assert live.epochs == [10, 7]
        live.check(7)
        live.check(10)
        (line,) = lines
        assert line["pages_changed"] == (sealed_pages(7) != sealed_pages(10)).any(axis=1).sum()
        write_delta(folder / "11.delta", 10, 11)
        live.hang_up()
        live.check(11)
        assert live.epochs == [11, 10]


def test_a_folder_begins_with_a_table_and_its_deltas(folder: Path) -> None:
    for epoch in (8, 9):
        write_delta(folder / f"{epoch}.delta", epoch - 1, epoch)
    with Live(folder) as live:
        assert live.epochs == [9]
        live.check(9)
        (generation,) = live.generations.held
        assert generation.info.root == write_epoch(folder / "other", 9).hex()


def test_a_delta_from_another_table_is_told_and_changes_nothing(
    folder: Path, lines: list[Line]
) -> None:
    with Live(folder) as live:
        write_delta(folder / "9.delta", 8, 9)  # from an epoch that is not there
        live.hang_up()
        (line,) = lines
        assert line["event"] == "reload_refused"
        assert "9.delta leads from epoch 8 with the root" in line["reason"]
        write_delta(folder / "9.delta", 8, 9, from_epoch=7)  # from other pages of that epoch
        live.hang_up()
        assert "9.delta leads from epoch 7 with the root" in lines[1]["reason"]
        assert live.epochs == [7]


@pytest.mark.parametrize("offset", [0, 100, HEADER_BYTES, -1])
def test_a_spoiled_delta_is_told_and_changes_nothing(
    folder: Path, lines: list[Line], offset: int
) -> None:
    with Live(folder) as live:
        write_delta(folder / "8.delta", 7, 8)
        spoil(folder / "8.delta", offset)
        live.hang_up()
        assert [line["event"] for line in lines] == ["reload_refused"]
        assert live.epochs == [7]
        live.check(7)


def test_a_table_is_read_where_its_delta_is_broken(folder: Path, lines: list[Line]) -> None:
    with Live(folder) as live:
        write_delta(folder / "8.delta", 7, 8)
        spoil(folder / "8.delta", 0)
        write_epoch(folder / "words-8.table", 8)
        live.hang_up()
        assert live.epochs == [8, 7]
        assert [line["event"] for line in lines] == ["reload_refused", "reloaded"]


# Memory


def test_nothing_of_an_epoch_that_is_no_longer_answered_for_stays_alive(folder: Path) -> None:
    with Live(folder) as live:
        seen: list[weakref.ref[Any]] = []
        for epoch in range(8, 14):
            if epoch % 2:
                write_epoch(folder / f"words-{epoch}.table", epoch)
            else:
                write_delta(folder / f"{epoch}.delta", epoch - 1, epoch)
            current = live.generations.current
            seen += [weakref.ref(current), weakref.ref(current.batcher.engine)]
            del current
            live.hang_up()
            assert live.generations.current.info.epoch_id == epoch
        assert live.generations.wait_retired(30)
        gc.collect()
        alive = [ref for ref in seen if ref() is not None]
        assert len(alive) == 2  # of the epoch before, which is still answered for


# GPU


def test_a_gpu_goes_on_with_the_pages_that_change(
    gpu: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Live(folder, device="cuda") as live:
        assert live.generations.current.info.device == "cuda:0"
        with monkeypatch.context() as patched:
            patched.setattr(opening, "open_engine", lambda *_, **__: pytest.fail("all was sent"))
            write_delta(folder / "8.delta", 7, 8)
            live.hang_up()
            live.check(7)
            live.check(8)
            write_epoch(folder / "words-9.table", 9)
            live.hang_up()
        assert live.epochs == [9, 8]
        live.check(8)
        live.check(9)


def test_a_gpu_without_room_for_two_tables_changes_all_pages_in_place(
    gpu: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DeviceOutOfMemoryError("there is no room")

    with Live(folder, device="cuda") as live:
        monkeypatch.setattr(opening, "open_engine", refuse)
        raw, contents = folder / "raw", contents_of(8)
        contents ^= 1
        raw.write_bytes(contents.tobytes())
        seal_file(raw, folder / "words-8.table", PAGE_SIZE, LEVELS)
        live.hang_up()
        assert live.epochs == [8, 7]
        live.check(7)
        live.check(8, seal_pages(contents, PAGE_SIZE, LEVELS).pages)


def test_a_gpu_takes_a_table_of_another_shape(gpu: StandIn, folder: Path) -> None:
    with Live(folder, device="cuda") as live:
        write_epoch(folder / "words-8.table", 8, pages=PAGES + 9)
        live.hang_up()
        assert live.epochs == [8, 7]
        live.check(7)
        info = live.generations.current.info
        assert (info.device, info.num_pages) == ("cuda:0", PAGES + 9)


def test_two_tables_are_compared_page_by_page() -> None:
    old = mg.PageMatrix(contents_of(3))
    assert differing_pages(old, old) is not None
    for size in (1, 64, 1 << 20):
        array = np.zeros((9, size), dtype=np.uint8)
        other = array.copy()
        for page in (0, 4, 8):
            other[page, -1] = 1
        found = differing_pages(mg.PageMatrix(array), mg.PageMatrix(other))
        assert found is not None
        assert found.tolist() == [0, 4, 8]
    assert differing_pages(old, mg.PageMatrix(contents_of(3, PAGES + 1))) is None
