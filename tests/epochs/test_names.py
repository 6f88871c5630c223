"""The epoch that a file's name tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from morphogen.epochs.names import epoch_of_name, epochs_between


@pytest.mark.parametrize(
    ("name", "epoch"),
    [
        ("words-7.table", 7),
        ("words_7.table", 7),
        ("words.7.table", 7),
        ("7.table", 7),
        ("0.table", 0),
        ("words-007.table", 7),
        ("words-2026-11-27.table", 27),
        ("words-7", 7),
        ("-7.table", 7),
        (f"{2**63 - 1}.table", 2**63 - 1),
        (f"words-{'0' * 100}12.table", 12),
    ],
)
def test_a_number_at_the_end_of_the_stem_is_the_epoch(name: str, epoch: int) -> None:
    assert epoch_of_name(name) == epoch
    assert epoch_of_name(Path("folder-3") / name) == epoch


@pytest.mark.parametrize(
    "name",
    [
        "words.table",
        "pages4096.bin",
        "words-7a.table",
        "words-.table",
        "words-\u0667.table",
        "words.7",
        f"{2**63}.table",
        f"words-{'9' * 200}.table",
        ".table",
        "",
    ],
    ids=ascii,
)
def test_any_other_name_tells_none(name: str) -> None:
    assert epoch_of_name(name) is None


def test_the_epochs_of_two_files_are_those_of_their_names_unless_they_are_given(
    tmp_path: Path,
) -> None:
    (tmp_path / "link").symlink_to("words-7.table")
    for arguments, epochs in (
        (("words-6.table", "words-7.table"), (6, 7)),
        (("words-2.table", "words-7.table"), (2, 7)),
        (("words.table", "words-7.table"), (6, 7)),
        (("words-6.table", "words.table", None, 9), (6, 9)),
        (("words-6.table", "words-7.table", 1, 2), (1, 2)),
        (("words.table", "next.table", None, 1), (0, 1)),
        ((tmp_path / "link", "words-9.table"), (7, 9)),
        (("words-6.table", tmp_path / "link"), (6, 7)),
    ):
        assert epochs_between(*arguments) == epochs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a-6.table", "b.table"), "b.table has no number at the end of its name: give --epoch"),
        (("a-7.table", "a-7.table"), "to_epoch must be above from_epoch, 7, not 7"),
        (("a-8.table", "a-7.table"), "to_epoch must be above from_epoch, 8, not 7"),
        (("a.table", "a-0.table"), "to_epoch must be above from_epoch, 0, not 0"),
        (("a", "b", -1, 3), r"from_epoch must be in 0\.\.2\*\*63 - 1, not -1"),
    ],
)
def test_epochs_of_which_the_second_does_not_follow(
    arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        epochs_between(*arguments)
