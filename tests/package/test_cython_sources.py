"""What compiled code may not say, since it is compiled without Cython's `wraparound`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "src"
# An index, not a slice: `a[-1]`, `a[0, -1]`, `a[-1, 0]`.
FROM_THE_END = re.compile(r"\[(?:[^][:]*,)?\s*-\s*\w+\s*(?:,[^][:]*)?\]")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a[-1]", True),
        ("a[0, -1]", True),
        ("a[-n, 0]", True),
        ("a[:-1]", False),
        ("a[n - 1]", False),
    ],
)
def test_an_index_that_counts_from_the_end_is_seen(text: str, found: bool) -> None:
    assert bool(FROM_THE_END.search(text)) == found


def test_no_index_counts_from_the_end() -> None:
    """NumPy 2.5 makes arrays sequences for Python, and Cython hands it the index as it is."""
    lines = {
        f"{path.name}:{number}": line
        for path in SOURCES.rglob("*.pyx")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    }
    assert len(lines) > 1000
    assert {place: line for place, line in lines.items() if FROM_THE_END.search(line)} == {}
