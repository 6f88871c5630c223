"""Arguments that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# Tells the user how far something has come: work done, work in all, what it is.
Progress = Callable[[int, int, str], None]
# Prints what a command found: for programs its data, for people what a function shows.
Print = Callable[[dict[str, Any], "Callable[[Console], None]"], None]


def add_device(parser: argparse._ActionsContainer, default: str) -> None:
    """Add the option that chooses the device."""
    parser.add_argument(
        "--device",
        default=default,
        help=f"cpu, cuda (the first GPU that can be used), cuda:N or auto (default: {default})",
    )


def int_list(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers with commas between, not {text!r}"
        ) from None
