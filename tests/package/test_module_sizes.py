"""The size of the sources: a module of more than 400 lines holds two concepts."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = {".py", ".pyi", ".pyx", ".pxd", ".h", ".cpp", ".cu", ".sh"}


# Tests have tables of cases, and the emulator has the grammar of PTX.
@pytest.mark.parametrize(
    ("folder", "most"),
    [("src", 400), ("kernels", 400), ("tools", 400), ("asv_bench", 400), ("tests", 550)],
)
def test_no_source_is_too_long(folder: str, most: int) -> None:
    own = {path: path.relative_to(ROOT) for path in (ROOT / folder).rglob("*")}
    sources = [
        path
        for path, inside in own.items()
        if path.suffix in SUFFIXES and not {"build", "env", "node_modules"} & set(inside.parts)
    ]
    assert sources
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert {path: count for path, count in lines.items() if count > most} == {}
