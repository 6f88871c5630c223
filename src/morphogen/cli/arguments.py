"""Arguments that several commands have."""

from __future__ import annotations

import argparse


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
