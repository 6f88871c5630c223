"""The ideas of tools/gpu_ideas.py: they still fit the sources, and the docs have what they cost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpu_budget
import gpu_ideas
import make_ptx

DOCS = Path(__file__).resolve().parents[2] / "docs" / "performance.md"


def sources(folder: Path) -> dict[str, str]:
    for name in make_ptx.sources():
        shutil.copy(make_ptx.KERNELS / name, folder)
    return {path.name: path.read_text() for path in folder.iterdir()}


def ideas() -> list[gpu_ideas.Idea]:
    return [idea for idea in gpu_ideas.IDEAS if idea.patches]


@pytest.mark.parametrize("idea", ideas(), ids=lambda idea: idea.name)
def test_every_patch_still_applies(idea: gpu_ideas.Idea, tmp_path: Path) -> None:
    before = sources(tmp_path)
    gpu_ideas.apply(idea, tmp_path)
    changed = {name for name, text in before.items() if (tmp_path / name).read_text() != text}
    assert changed == {patch.file for patch in idea.patches}


@pytest.mark.parametrize("old", ["constexpr unsigned", "no such text"])
def test_a_text_that_is_not_there_exactly_once_is_refused(old: str, tmp_path: Path) -> None:
    sources(tmp_path)
    idea = gpu_ideas.Idea("wrong", (6,), (gpu_ideas.Patch("page_jobs.h", old, ""),))
    with pytest.raises(ValueError, match=r"^wrong: \d+ times in page_jobs.h, not once: "):
        gpu_ideas.apply(idea, tmp_path)


def test_names_are_there_once() -> None:
    names = [idea.name for idea in gpu_ideas.IDEAS]
    assert len(set(names)) == len(names)
    for name in names:
        assert f"| {name} |" in DOCS.read_text(encoding="utf-8")


def compilers() -> tuple[str, tuple[str, str]]:
    nvcc, tools = make_ptx.find_tool("nvcc"), gpu_budget.find_tools()
    if nvcc is None or tools is None:
        pytest.skip(f"needs nvcc {make_ptx.RELEASE}, {gpu_budget.NEEDED}")
    return nvcc, tools


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "reason"), [("", "expected an expression"), ("512", "too much shared data")]
)
def test_an_idea_that_a_compiler_refuses_says_why(width: str, reason: str) -> None:
    nvcc, tools = compilers()
    patch = gpu_ideas.Patch("page_jobs.h", "kTileVectors = 256;", f"kTileVectors = {width};")
    (row,) = gpu_ideas.rows(gpu_ideas.Idea("wrong", (6, 12), (patch,)), nvcc, tools)
    assert row[:2] == ("wrong", "6, 12")
    assert row[2].startswith("refused: ")
    assert reason in row[2]
    assert len(row) == len(gpu_ideas.COLUMNS)


@pytest.mark.slow
def test_the_table_in_the_docs_is_what_the_tool_prints() -> None:
    compilers()
    command = [sys.executable, gpu_ideas.__file__, "--markdown"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed in DOCS.read_text(encoding="utf-8")
