"""The part of a Markdown file that a tool writes: what stands between the tool's two markers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def markers(tool: str) -> tuple[str, str]:
    """The two lines between which a tool writes."""
    return f"<!-- tools/{tool} writes from here -->", f"<!-- tools/{tool} writes to here -->"


def marked_file(tool: str) -> Callable[[str], Path]:
    """For argparse: a file with the tool's markers, or one that can be made."""
    begin, end = markers(tool)

    def check(path: str) -> Path:
        file = Path(path)
        if not file.exists():
            if not file.parent.is_dir():
                raise argparse.ArgumentTypeError(f"{file.parent} is not a folder")
            return file
        before, found, rest = file.read_text(encoding="utf-8").partition(begin)
        if not found or end not in rest or end in before:
            raise argparse.ArgumentTypeError(f"{path} lacks the lines {begin} and {end}")
        return file

    return check


def write_marked(file: Path, tool: str, text: str) -> None:
    """Replace what stands between the markers; a file that is not there is made."""
    begin, end = markers(tool)
    old = file.read_text(encoding="utf-8") if file.exists() else f"{begin}\n{end}\n"
    before, _, rest = old.partition(begin)
    _, _, after = rest.partition(end)
    file.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", encoding="utf-8")
