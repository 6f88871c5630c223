"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import re


def add_device(parser: argparse._ActionsContainer, default: str) -> None:
    """Add the option that chooses the device."""
    parser.add_argument(
        "--device",
        default=default,
        help="cpu, cuda (the first GPU that can be used), cuda:N, cuda:all (all GPUs share the "
        f"pages), names such as cuda:0,cuda:2, or auto (default: {default})",
    )


def int_list(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers with commas between, not {text!r}"
        ) from None


def byte_size(text: str) -> int:
    """A number of bytes, such as 4096, 4k or 2G: each letter is 1024 times the one before."""
    found = re.fullmatch(r"([+-]?\d{1,40})(?:([kmgt])(?:ib)?)?", text.lower())
    if found is None:
        raise argparse.ArgumentTypeError(
            f"must be a number of bytes, such as 4096, 4k or 2G, not {text!r}"
        )
    return int(found[1]) << 10 * " kmgt".index(found[2] or " ")
