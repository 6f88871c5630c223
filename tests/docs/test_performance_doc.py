"""docs/performance.md gives every table and picture the command that makes it, and it works.

The commands of docs/scaling.md work, too.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "performance.md"
# The headings of estimates and static counts contain these words, since nothing was measured
# there.
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Block:
    """Lines between blank ones, and the headings that they stand under."""

    chapter: str
    section: str
    text: str

    @property
    def is_figure(self) -> bool:
        return self.text.startswith(("|", "!["))

    @property
    def commands(self) -> list[str]:
        """Return the code in backticks that calls one of our programs."""
        if self.text.startswith("|"):
            return []
        quoted = re.findall(r"`([^`]+)`", self.text)
        joined = (re.sub(r"\s+", " ", text) for text in quoted)
        return [text for text in joined if text.startswith(("python ", "morphogen "))]


def blocks(text: str) -> Iterator[Block]:
    chapter = section = ""
    # Another test runs the code blocks.
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for part in re.split(r"\n\s*\n", prose):
        kept = part.strip()
        if kept.startswith("#"):
            section = kept.splitlines()[0]
            if not section.startswith("###"):
                chapter = section
        elif kept and not kept.startswith("<!--"):
            yield Block(chapter, section, kept)


def bare_figures(text: str) -> list[str]:
    """Return tables and pictures without a command in a neighbouring block of their section."""
    found = list(blocks(text))
    bare = []
    for at, block in enumerate(found):
        if not block.is_figure or NOT_MEASURED in block.chapter:
            continue
        beside = [found[place] for place in (at - 1, at + 1) if 0 <= place < len(found)]
        if not any(other.commands for other in beside if other.section == block.section):
            bare.append(f"{block.section}: {block.text.splitlines()[0]}")
    return bare


@functools.cache
def help_of(*program: str) -> str:
    run = subprocess.run(
        [*program, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "500"},  # no option is broken at its hyphen
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, f"{program} --help: {run.stderr}"
    return run.stdout


def faults_of(command: str) -> list[str]:
    """Return the parts of a command that do not exist: the script, or its options."""
    words = shlex.split(command)
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    if words[0] == "morphogen":
        subcommand = [word for word in words[1:2] if not word.startswith("-")]
        text = help_of(sys.executable, "-m", "morphogen", *subcommand)
    elif not (ROOT / words[1]).is_file():
        return [f"there is no {words[1]}"]
    else:
        text = help_of(sys.executable, words[1])
    known = set(re.findall(r"--[a-z0-9-]+", text))
    return [f"{command}: no option {option}" for option in options if option not in known]


def commands() -> list[str]:
    pages = (DOCUMENT, DOCUMENT.with_name("scaling.md"))
    found = [
        command
        for page in pages
        for block in blocks(page.read_text())
        for command in block.commands
    ]
    return list(dict.fromkeys(found))


def test_every_figure_has_its_command_beside_it():
    text = DOCUMENT.read_text()
    assert sum(block.is_figure for block in blocks(text)) > 5
    assert bare_figures(text) == []


@pytest.mark.parametrize("command", commands())
def test_commands_exist_and_take_their_options(command: str):
    assert faults_of(command) == []


@pytest.mark.parametrize(
    "text",
    [
        "## A\n\nNo command.\n\n| a |\n|---|\n| 1 |\n",
        "## A\n\n`morphogen bench`\n\nA paragraph between.\n\n| a |\n|---|\n| 1 |\n",
        "## A\n\n`python tools/measure/targets.py`\n\n### B\n\n![plot](plot.svg)\n",
    ],
)
def test_a_figure_without_its_command_is_found(text: str):
    assert len(bare_figures(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "## A\n\nBy `python\ntools/measure/targets.py`:\n\n| a |\n|---|\n| 1 |\n",
        "## A\n\n![plot](plot.svg)\n\n`morphogen bench`\n",
        "## A: estimated, not measured\n\n### B\n\n| a |\n|---|\n| 1 |\n",
    ],
)
def test_a_command_before_or_after_is_enough(text: str):
    assert bare_figures(text) == []


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("python tools/no_such_tool.py", "there is no tools/no_such_tool.py"),
        ("python tools/measure/targets.py --faster", "no option --faster"),
        ("morphogen bench --device cpu --wheels=4", "no option --wheels"),
    ],
)
def test_a_command_that_does_not_work_is_found(command: str, fault: str):
    assert [fault in found for found in faults_of(command)] == [True]
