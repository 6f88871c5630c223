"""The size of the sources: a module of more than 400 lines holds two concepts."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = {".py", ".pyi", ".pyx", ".pxd", ".h", ".cpp", ".cu", ".sh"}
GRAMMAR = "tests/emulator/native/"  # that of PTX, and the calls of CUDA's driver


def most_lines(source: Path) -> int:
    return 500 if source.as_posix().startswith(GRAMMAR) else 400


@pytest.mark.parametrize("folder", ["src", "kernels", "tools", "asv_bench", "tests"])
def test_no_source_is_too_long(folder: str) -> None:
    own = {path: path.relative_to(ROOT) for path in (ROOT / folder).rglob("*")}
    sources = [
        path
        for path, inside in own.items()
        if path.suffix in SUFFIXES and not {"build", "env", "node_modules"} & set(inside.parts)
    ]
    assert sources
    lines = {own[path]: len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert {path: count for path, count in lines.items() if count > most_lines(path)} == {}
