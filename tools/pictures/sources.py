"""Numbers that pictures take from C++ headers and from tables of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def constant(header: str, name: str) -> int:
    """The value of a constant of kernels/<header>: a number, or a product or shift of two."""
    text = (ROOT / "kernels" / header).read_text(encoding="utf-8")
    found = re.search(rf"\b{name} = (\d+)(?: (<<|\*) (\d+))?[,;]", text)
    if found is None:
        raise LookupError(f"{header} has no constant {name} that is a number")
    left, operator, right = int(found[1]), found[2], found[3]
    if operator is None:
        return left
    return left << int(right) if operator == "<<" else left * int(right)


def block_windows() -> int:
    """Leaves that a block of the page kernels expands at a time, for up to 6 keys."""
    text = (ROOT / "kernels" / "page_jobs.h").read_text(encoding="utf-8")
    found = re.search(r"kMaxChunkKeys\) return \{kBlockThreads, kTileVectors, (\d+), keys\}", text)
    if found is None:
        raise LookupError("page_jobs.h does not say how many leaves a window has")
    return int(found[1])


def counted_loops() -> dict[tuple[str, int], tuple[float, float]]:
    """Of an idea and a number of keys: instructions of the slower pipe, and all, for a load.

    The table of docs/performance.md that a test compares with what tools/gpu_ideas.py counts.
    """
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    table = text.partition("<!-- tools/gpu_ideas.py --markdown -->\n")[2].partition("\n\n")[0]
    head, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
    ]
    pipe, every = head.index("one pipe"), head.index("all")
    return {
        (cells[0], int(cells[1])): (float(cells[pipe]), float(cells[every]))
        for cells in lines
        if len(cells) == len(head) and cells[pipe]
    }
