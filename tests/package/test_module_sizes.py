"""The size of the sources: a module over 400 lines is two concepts."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["src/morphogen", "kernels", "tools", "tests", "asv_bench"]
SUFFIXES = {".py", ".pyi", ".pyx", ".pxd", ".h", ".cpp", ".cu", ".sh"}
MOST_LINES = 400

# What is longer for a reason, and how long it is now: it may shrink, and its number with it.
LONGER = {
    "tests/emulator/native/ptx_decode.cpp": 429,  # the grammar of instructions
    "tests/emulator/native/ptx_memory.cpp": 487,  # all accesses share one check
    "tests/emulator/native/standin_driver.cpp": 403,  # one function for each that the driver has
    "tests/batcher/test_batcher.py": 533,  # one engine, held and let go, by which all is seen
    "tests/dpf/test_keys_hostile.py": 418,  # one list of what is wrong with a key, by many ways in
}


def lengths() -> dict[str, int]:
    """How many lines each source has, by its path."""
    found = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in SUFFIXES and not {"build", "node_modules", "results"} & set(path.parts)
    }
    assert {Path(name).suffix for name in found} == SUFFIXES
    return found


@pytest.mark.parametrize("name", [name for name, lines in lengths().items() if lines > MOST_LINES])
def test_what_is_longer_has_a_reason_and_does_not_grow(name: str) -> None:
    assert lengths()[name] <= LONGER.get(name, MOST_LINES)


def test_the_list_of_longer_modules_is_no_longer_than_it_must_be() -> None:
    now = lengths()
    assert {name: now.get(name) for name in LONGER} == LONGER
    assert all(lines > MOST_LINES for lines in LONGER.values())
