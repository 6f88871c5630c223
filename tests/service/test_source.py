"""What a path offers: a file, a link to one, a folder of epochs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import morphogen as mg
from epoch_files import point, replace, write_delta, write_epoch
from morphogen.service.source import Offer, Standing, look, stamp

# Files and links


def test_a_file_is_one_offer_and_its_name_tells_the_epoch(tmp_path: Path) -> None:
    path = tmp_path / "words-7.table"
    write_epoch(path, 7)
    assert look(path, None).offers == [Offer(path, 7, path)]
    assert look(path, Standing(9, None)).offers == [Offer(path, 7, path)]
    plain = tmp_path / "pages4096.bin"
    plain.write_bytes(b"x")
    assert look(plain, None).offers == [Offer(plain, None, plain)]


def test_a_link_is_followed_at_each_look(tmp_path: Path) -> None:
    old, new, link = tmp_path / "words-7.table", tmp_path / "words-8.table", tmp_path / "current"
    for path in (old, new):
        path.write_bytes(b"x")
    point(link, old)
    before = stamp(link)
    assert look(link, None).offers == [Offer(old, 7, old)]
    point(link, new)
    assert look(link, None).offers == [Offer(new, 8, new)]
    assert stamp(link) != before


def test_a_path_that_leads_nowhere_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to("missing.table")
    assert stamp(link) == ()
    assert look(link, None).offers == [Offer(link, None, link)]


def test_a_file_without_a_name_is_its_path() -> None:
    descriptor = os.memfd_create("morphogen")
    try:
        path = Path(f"/proc/self/fd/{descriptor}")
        assert look(path, None).offers == [Offer(path, None, path)]
        assert len(stamp(path)) == 1
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("change", ["bytes", "replaced", "touched", "manifest"])
def test_the_stamp_tells_what_changed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "words-7.table"
    path.write_bytes(b"one")
    before = stamp(path)
    assert stamp(path) == before
    match change:
        case "bytes":
            path.write_bytes(b"other")
        case "replaced":
            state = path.stat()
            replace(path, b"two")
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        case "touched":
            os.utime(path, ns=(0, 0))
        case "manifest":
            path.with_suffix(".manifest").write_bytes(b"x")
    assert stamp(path) != before


# Folders


def test_a_folder_offers_its_tables_the_highest_epoch_first(tmp_path: Path) -> None:
    for number in (9, 10, 8):
        write_epoch(tmp_path / f"words-{number}.table", number)
    write_epoch(tmp_path / "words.table", 3)  # of no epoch
    (tmp_path / "notes-99.txt").write_bytes(b"x")
    (tmp_path / ".words-11.table").write_bytes(b"half of it")
    outlook = look(tmp_path, None)
    assert [offer.epoch for offer in outlook.offers] == [10, 9, 8]
    assert outlook.faults == []
    path = tmp_path / "words-10.table"
    assert look(tmp_path, Standing(9, None)).offers == [Offer(path, 10, path)]
    assert look(tmp_path, Standing(10, None)).offers == []


def test_a_broken_table_that_would_lead_on_is_a_fault_and_hides_no_other(tmp_path: Path) -> None:
    for number in (7, 8, 9):
        write_epoch(tmp_path / f"words-{number}.table", number)
    for number in (7, 9):
        path = tmp_path / f"words-{number}.table"
        replace(path, path.read_bytes()[:-1])
    outlook = look(tmp_path, Standing(7, None))
    assert [offer.epoch for offer in outlook.offers] == [8]
    (fault,) = outlook.faults  # what is past does not matter
    assert fault.path == tmp_path / "words-9.table"
    assert "is truncated" in fault.reason


def test_two_tables_of_one_epoch_with_other_roots_are_a_fault(tmp_path: Path) -> None:
    write_epoch(tmp_path / "words-7.table", 7)
    write_epoch(tmp_path / "others-7.table", 8)
    write_epoch(tmp_path / "words-6.table", 6)
    outlook = look(tmp_path, None)
    assert [offer.epoch for offer in outlook.offers] == [6]
    (fault,) = outlook.faults
    assert "2 tables of the epoch 7 with other roots" in fault.reason


def test_a_delta_that_nothing_leads_to_is_a_fault_if_it_leads_above_all_else(
    tmp_path: Path,
) -> None:
    root = write_epoch(tmp_path / "words-7.table", 7)
    for before, after in ((3, 4), (8, 9)):
        write_delta(tmp_path / f"{after}.delta", before, after)
    outlook = look(tmp_path, Standing(7, root))
    assert outlook.offers == []
    (fault,) = outlook.faults  # not of that which leads to a past epoch
    assert fault.path == tmp_path / "9.delta"
    assert "to 9: no table here is that one" in fault.reason
    assert look(tmp_path, Standing(9, None)).faults == []


@pytest.mark.parametrize("name", ["", "words.table", "words-7.bin"])
def test_a_folder_without_an_epoch_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    if name:
        write_epoch(tmp_path / name, 7)
    with pytest.raises(mg.SourceError, match="there is no table with an epoch in the folder"):
        look(tmp_path, None)
    assert look(tmp_path, Standing(7, None)).offers == []


def test_a_folder_of_broken_tables_says_why_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "words-7.table").write_bytes(b"x")
    with pytest.raises(mg.SourceError, match=r"words-7\.table is not a keyword table"):
        look(tmp_path, None)
