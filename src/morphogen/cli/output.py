"""The output of a command: its exit code, and its result for programs or for people."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from morphogen.checks import printable
from morphogen.cli import streams

if TYPE_CHECKING:
    from rich.console import Console

OK, FAILED, USAGE, NOT_FOUND, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 130, 141
EXIT_CODES = """\
exit codes:
  0    done, and every answer was right
  1    an answer differed, or a check failed
  2    wrong usage or bad input, with the reason on stderr
  3    a key is not in the table
  130  interrupted; 129 and 143 by SIGHUP and SIGTERM
  141  done, and the reader of the output went away before its end
"""

# Shows a result to people.
Show = Callable[["Console"], None]
# Prints a result: its data for programs, or a view of it for people.
PrintResult = Callable[[dict[str, Any], Show], None]

_PLAIN_WIDTH = 100


def print_help(parser: argparse.ArgumentParser) -> int:
    """Print the help of a command that was called without any argument."""
    parser.print_help()
    return OK


def print_json(data: dict[str, Any]) -> None:
    """Print a result for programs."""
    streams.write(json.dumps(printable(data), indent=2) + "\n")


def print_text(show: Show) -> None:
    """Print a result for people."""
    from rich.console import Console

    # Names of files and words of pages are printed: they must not be read as markup.
    console = Console(
        markup=False,
        highlight=False,
        emoji=False,
        width=None if sys.stdout.isatty() else _PLAIN_WIDTH,
    )
    # Captured, because rich turns a broken pipe into exit code 1, which means something else here.
    with streams.writing(), console.capture() as captured:
        show(console)
    streams.write(captured.get())
