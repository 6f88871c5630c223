"""Take pictures of what the command line prints, for the documentation: docs/pictures/screen-*.svg.

    python tools/screenshots.py          takes them all
    python tools/screenshots.py demo     takes one

The commands run as they would for a user, on a terminal of their own, and what they print is kept
with its colours. Times in it are this machine's, in this minute: a test compares the words alone.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "pictures"
COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Shot:
    """A command to take a picture of.

    Attributes
    ----------
    name : str
        The file is screen-<name>.svg.
    arguments : tuple of str
        Of `morphogen`, run in the root of the repository.
    """

    name: str
    arguments: tuple[str, ...]


SHOTS = (
    Shot("demo", ("demo", "kernels/ptx/page_scan.compute_90.ptx")),
    Shot("doctor", ("doctor",)),
)


def run_on_terminal(command: list[str]) -> str:
    """What a command prints on a terminal; raises CalledProcessError where it fails."""
    ours, theirs = pty.openpty()
    # Rows, columns, and pixels, which nobody asks for.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, cwd=ROOT, env=environment
    ) as process:
        os.close(theirs)
        printed = bytearray()
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's way to say that nobody holds the other end
                break
            if not part:
                break
            printed += part
    os.close(ours)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return printed.decode().replace("\r\n", "\n")


def picture(title: str, printed: str) -> str:
    """The SVG of a terminal that shows what was printed."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), legacy_windows=False)
    console.print(Text.from_ansi(printed.rstrip("\n")), soft_wrap=False)
    svg = console.export_svg(title=title, theme=DEFAULT_TERMINAL_THEME, unique_id="screen")
    # rich asks another host for a font, which a page should not.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description="Take pictures of the command line.")
    names = [shot.name for shot in SHOTS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(names)}; default all")
    wanted = parser.parse_args().names
    for name in wanted:
        if name not in names:
            parser.error(f"NAME must be one of {', '.join(names)}, not {name}")
    program = str(Path(sys.executable).with_name("morphogen"))
    for shot in SHOTS:
        if wanted and shot.name not in wanted:
            continue
        printed = run_on_terminal([program, *shot.arguments])
        title = f"morphogen {' '.join(shot.arguments)}"
        (FOLDER / f"screen-{shot.name}.svg").write_text(picture(title, printed), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
