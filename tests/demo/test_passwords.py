"""The list of breached passwords that the demo makes."""

from __future__ import annotations

import re
from hashlib import sha1
from itertools import islice
from pathlib import Path

import pytest

from morphogen.demo.passwords import (
    MAX_ENTRIES,
    MOST_FOUND,
    find_in_list,
    find_words,
    make_passwords,
    read_list,
    write_list,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("list") / "breached.txt"
    write_list(path, 3000)
    return path


def test_words_are_letters_and_each_is_there_once() -> None:
    words = find_words()
    assert len(words) == len(set(words)) > 5000
    assert all(re.fullmatch(r"[a-z]{3,12}", word) for word in words)


def test_passwords_are_distinct_and_come_in_the_same_order_again() -> None:
    first = list(islice(make_passwords(), 100_000))
    assert first == list(islice(make_passwords(), 100_000))
    assert len(set(first)) == len(first)
    assert {"123456", "password", "letmein"} <= set(first[:20])


@pytest.mark.slow
def test_there_are_enough_passwords_for_the_longest_list() -> None:
    made = set(islice(make_passwords(), MAX_ENTRIES))
    assert len(made) == MAX_ENTRIES


def test_the_list_has_a_sorted_line_for_each_password(source: Path) -> None:
    text = source.read_text(encoding="ascii")
    assert re.fullmatch(r"([0-9A-F]{20}:[1-9][0-9]*\n){3000}", text)
    lines = text.splitlines()
    assert lines == sorted(lines)
    counts = dict(line.split(":") for line in lines)
    for rank, password in enumerate(islice(make_passwords(), 3000), start=1):
        assert int(counts[sha1(password.encode()).hexdigest()[:20].upper()]) == MOST_FOUND // rank
    assert [b":".join(row) for row in read_list(source)] == text.encode().split()


@pytest.mark.parametrize("entries", [1, 2, 3, 1000])
def test_the_list_is_searched_as_it_stands(entries: int, tmp_path: Path) -> None:
    path = tmp_path / "list"
    write_list(path, entries)
    for rank, password in enumerate(islice(make_passwords(), entries), start=1):
        assert find_in_list(path, password) == MOST_FOUND // rank
        assert find_in_list(path, f"{password}?") is None  # before, between and behind its lines


@pytest.mark.parametrize("entries", [-1, 0, MAX_ENTRIES + 1])
def test_a_list_of_no_or_too_many_lines_is_refused(entries: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^entries must be .*{entries}$"):
        write_list(tmp_path / "list", entries)
    assert not list(tmp_path.iterdir())


def test_the_list_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_list(tmp_path / "list", 1000, lambda done, total: told.append((done, total)))
    assert told[-1] == (1000, 1000)
    assert len(told) <= 101


def test_a_list_that_does_not_fit_the_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_list(tmp_path / "full", 10)
    assert caught.value.filename == str(tmp_path / "full")
