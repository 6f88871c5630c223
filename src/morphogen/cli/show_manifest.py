"""What a manifest says, for people and for programs."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from morphogen.cli.output import PrintResult

if TYPE_CHECKING:
    from rich.console import Console

    from morphogen.epochs.manifest import Manifest


def print_manifest(path: Path, manifest: Manifest, print_result: PrintResult) -> None:
    """Print what a manifest says. That its signature is right is not said.

    Parameters
    ----------
    path : pathlib.Path
        Of the manifest.
    manifest : Manifest
    print_result : callable
    """
    data = {
        "manifest": os.fspath(path),
        "owner": manifest.owner.hex(),
        "root": manifest.root.hex(),
        "table_id": manifest.table_id.hex(),
        "epoch": manifest.epoch,
        "activate_at": manifest.activate_at,
        "expires": manifest.expires,
        "previous": manifest.previous.hex(),
    }

    def show(console: Console) -> None:
        for name, value in (
            ("Manifest", data["manifest"]),
            ("Owner", data["owner"]),
            ("Root", data["root"]),
            ("Table id", data["table_id"]),
            ("Epoch", data["epoch"]),
            ("Active from", _moment(manifest.activate_at) or "at once"),
            ("Expires", _moment(manifest.expires) or "never"),
        ):
            console.print(f"{name}  {value}", soft_wrap=True)

    print_result(data, show)


def _moment(seconds: int) -> str:
    """A time for people; empty for 0."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}" if seconds else ""
    except (OverflowError, ValueError, OSError):  # beyond the year 9999
        return f"{seconds} (Unix seconds)"
