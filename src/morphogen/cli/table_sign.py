"""``morphogen table keygen | sign``: a table's owner vouches for the root of an epoch."""

from __future__ import annotations

import argparse
import re
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from morphogen.cli.lookup import read_input
from morphogen.cli.output import OK, PrintResult
from morphogen.cli.show_manifest import print_manifest
from morphogen.cli.streams import STANDARD, check_inputs, check_output_file, input_file, output_file
from morphogen.cli.table_read import without_root
from morphogen.errors import ManifestError
from morphogen.progress import Progress, StagedProgress, stage

if TYPE_CHECKING:
    from rich.console import Console

    from morphogen.epochs.manifest import Manifest

_OWNER_ONLY = 0o600
_TIME = "as 2027-01-31T12:00Z, +SECONDS from now, or Unix seconds"


def add_keygen_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``morphogen table keygen``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="file to write: the private key, PEM without a passphrase, readable by you alone",
    )
    parser.add_argument("--force", action="store_true", help="replace FILE where it is there")


def add_sign_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``morphogen table sign``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument(
        "table", type=Path, metavar="TABLE", help="a table with a root, or a delta; it is verified"
    )
    parser.add_argument(
        "--key",
        required=True,
        type=Path,
        metavar="FILE",
        help="the owner's private key, of morphogen table keygen; - for the standard input",
    )
    parser.add_argument(
        "--epoch",
        type=int,
        metavar="N",
        help="the table's version (default: the number at the end of its name)",
    )
    parser.add_argument(
        "--activate-at",
        type=unix_time,
        default=0,
        metavar="TIME",
        help=f"when servers begin to serve it, {_TIME} (default: at once)",
    )
    parser.add_argument(
        "--expires",
        type=unix_time,
        default=0,
        metavar="TIME",
        help="from when it counts no more (default: never)",
    )
    parser.add_argument(
        "--previous",
        type=Path,
        metavar="MANIFEST",
        help="the table's manifest before, by the same owner",
    )
    parser.add_argument(
        "--table-id",
        type=_table_id,
        metavar="HEX",
        help="16 bytes that all manifests of a table share (default: that of --previous, else "
        "random)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="MANIFEST",
        help="file to write (default: beside TABLE, with the ending .manifest)",
    )
    parser.add_argument("--force", action="store_true", help="replace MANIFEST where it is there")


def unix_time(text: str) -> int:
    """A time in Unix seconds, of ISO 8601 with its zone, of seconds from now, or of such seconds.

    Parameters
    ----------
    text : str
        "2027-01-31T12:00Z", "+3600" or "1801396800".

    Returns
    -------
    int
        0 or more.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is none of these.
    """
    if re.fullmatch(r"\+?[0-9]{1,18}", text):
        return int(text) + (int(time.time()) if text.startswith("+") else 0)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.min  # without a zone
    if moment.tzinfo is None or moment.timestamp() < 0:
        raise argparse.ArgumentTypeError(f"must be a time {_TIME}, not {text!r}")
    return int(moment.timestamp())


def _table_id(text: str) -> bytes:
    if not re.fullmatch("[0-9a-fA-F]{32}", text):
        raise argparse.ArgumentTypeError(f"must be 32 hexadecimal digits, not {text!r}")
    return bytes.fromhex(text)


def keygen(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Make an owner's key, and print its public half."""
    from morphogen.epochs.manifest import make_private_key, public_key
    from morphogen.keyword.atomic_file import replace_file

    if args.output == STANDARD:
        raise ValueError("table keygen writes a file, not the standard output: give -o a name")
    check_output_file(args.output, force=args.force)
    private = make_private_key()
    owner = public_key(private).hex()
    with replace_file(output_file(args.output, force=args.force), mode=_OWNER_ONLY) as file:
        file.write(private)

    def show(console: Console) -> None:
        console.print(owner, soft_wrap=True)

    print_result({"key": str(args.output), "owner": owner}, show)
    return OK


def sign(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Sign the root of a table's epoch, and print what was signed."""
    from morphogen.epochs.manifest import public_key, read_manifest, sign_manifest
    from morphogen.keyword.atomic_file import replace_file

    if args.table == STANDARD:
        raise ValueError("table sign takes the name of a file, not the standard input")
    # A link may lead from one epoch's file to the next one's: the file's own name counts.
    table: Path = args.table.resolve() if args.table.is_symlink() else args.table
    output = args.output or table.with_suffix(".manifest")
    check_output_file(output, args.table, force=args.force)
    check_output_file(output, args.key, force=args.force)
    check_inputs({"--key": args.key, "--previous": args.previous})
    private = read_input(args.key)
    try:
        owner = public_key(private)
    except ManifestError as error:
        raise ManifestError(f"{args.key}: {error}") from None
    root, epoch = _look(table, args.epoch)
    previous = None if args.previous is None else read_manifest(input_file(args.previous))
    if previous is not None:
        _check_previous(previous, owner, epoch, args)
    manifest = sign_manifest(
        private,
        table_id=args.table_id or (previous.table_id if previous else _random_table_id()),
        epoch=epoch,
        root=root,
        activate_at=args.activate_at,
        expires=args.expires,
        previous=None if previous is None else previous.digest,
    )
    if _verified_root(table, stage(progress, "verifying")) != root:
        raise ValueError(f"{args.table} was replaced by another while it was signed")
    with replace_file(output_file(output, force=args.force)) as file:
        file.write(manifest.pack())
    print_manifest(output, manifest, print_result)
    return OK


def _look(table: Path, given: int | None) -> tuple[bytes, int]:
    """The root and the epoch that are signed, by a file's header and name. No page is read."""
    from morphogen.epochs.delta import is_delta, read_delta_header
    from morphogen.epochs.names import epoch_of_name
    from morphogen.keyword.file import read_header

    if is_delta(table):
        header = read_delta_header(table)
        if given not in (None, header.to_epoch):
            raise ValueError(f"{table} leads to epoch {header.to_epoch}, not {given}")
        return header.root_after, header.to_epoch
    root = read_header(table).root
    if root is None:
        raise without_root(table)
    epoch = epoch_of_name(table) if given is None else given
    if epoch is None:
        raise ValueError(f"{table} has no number at the end of its name: give --epoch")
    return root, epoch


def _verified_root(table: Path, progress: Progress) -> bytes | None:
    """The same root, after the whole file was read. That of a delta is its maker's word."""
    from morphogen.epochs.delta import is_delta, open_delta
    from morphogen.keyword.file import open_table

    if is_delta(table):
        return open_delta(table, progress).header.root_after
    return open_table(table, progress=progress).header.root


def _check_previous(previous: Manifest, owner: bytes, epoch: int, args: argparse.Namespace) -> None:
    """Refuse what no reader of the manifest before would take for the next one."""
    previous.verify(owner, now=0)
    if epoch <= previous.epoch:
        raise ValueError(
            f"the epoch must be above that of --previous, {previous.epoch}, not {epoch}"
        )
    if args.table_id not in (None, previous.table_id):
        raise ValueError(
            f"--table-id must be that of --previous, {previous.table_id.hex()}, not "
            f"{args.table_id.hex()}"
        )


def _random_table_id() -> bytes:
    import secrets

    from morphogen.epochs.manifest import TABLE_ID_BYTES

    return secrets.token_bytes(TABLE_ID_BYTES)
