"""The epoch that a file's name tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from morphogen.epochs.names import epoch_of_name


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
