"""Keys that a command looks up, and the values that it found."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from codecs import BOM_UTF8
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.checks import names_file
from morphogen.cli.output import NOT_FOUND, OK, PrintResult
from morphogen.cli.streams import STANDARD, check_input, complain, takes_output, write_bytes
from morphogen.cli.values import as_row, as_text, show_value

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MOST_OF_KEYS = 256 << 20  # bytes of a file of keys


def add_lookup_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options for keys in a file and for a file of the bytes that were found.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    what : str
        The bytes that -o writes, for the help.
    """
    parser.add_argument(
        "--lookup-file",
        type=Path,
        metavar="FILE",
        help="a file of keys to look up, one a line (- for the standard input)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f"write the bytes of {what} to a file (- for the standard output)",
    )


def read_keys(args: argparse.Namespace, texts: Sequence[str]) -> list[bytes]:
    """Take the keys of the command line, then those of the file.

    Parameters
    ----------
    args : argparse.Namespace
        With the options of `add_lookup_options`.
    texts : sequence of str
        The keys of the command line.

    Returns
    -------
    list of bytes

    Raises
    ------
    OSError
        If the file cannot be read. It names the file.
    ValueError
        If -o would write several values.
    """
    keys = [os.fsencode(text) for text in texts]  # the bytes that were typed
    if args.lookup_file is not None:
        keys += _keys_of_file(args.lookup_file)
    if args.output and len(keys) > 1:
        raise ValueError(f"-o writes one value: give one key, not {len(keys)}")
    return keys


def read_input(path: Path, most: int = 1 << 20) -> bytes:
    """Read a small file.

    Parameters
    ----------
    path : pathlib.Path
        `STANDARD` for the standard input.
    most : int, optional
        The bytes that it may have. A device may have no end.

    Returns
    -------
    bytes

    Raises
    ------
    OSError
        If it cannot be read. It names the file.
    ValueError
        If it has more bytes.
    """
    if path == STANDARD:
        check_input()
        content = sys.stdin.buffer.read(most + 1)
    else:
        with names_file(path), path.open("rb") as file:
            content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path} has more than {most >> 20} MiB")
    return content


def _keys_of_file(path: Path) -> list[bytes]:
    text = read_input(path, MOST_OF_KEYS).removeprefix(
        BOM_UTF8
    )  # which some editors put before a text
    lines = (line.removesuffix(b"\r") for line in text.split(b"\n"))
    return [line for line in lines if line]  # as in a CSV file, empty lines are none


def check_destination(args: argparse.Namespace) -> None:
    """Refuse an output that cannot be, before any work.

    Parameters
    ----------
    args : argparse.Namespace
        With the options of `add_lookup_options` and --json.

    Raises
    ------
    OSError
        If the standard output is closed, or the file is a folder or has none.
    ValueError
        If two outputs go to one place.
    """
    if takes_output(args.json, {"-o": args.output}) or args.output is None:
        return
    if args.output.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(args.output))
    folder = Path(os.path.realpath(args.output)).parent
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(args.output))


def write_output(path: Path, content: bytes) -> None:
    """Write bytes to a file or to the standard output.

    Parameters
    ----------
    path : pathlib.Path
    content : bytes

    Raises
    ------
    OSError
        If it cannot be written. It names the file.
    """
    if path == STANDARD:
        write_bytes(content)
    else:
        with names_file(path):
            path.write_bytes(content)


def print_values(
    keys: Sequence[bytes],
    found: Sequence[bytes | None],
    about: dict[str, Any],
    output: Path | None,
    print_result: PrintResult,
    *,
    proven: bool = False,
) -> int:
    """Print what was found, or write it to a file.

    Parameters
    ----------
    keys : sequence of bytes
    found : sequence of (bytes or None)
        Their values; None for a key that is not there.
    about : dict
        More for programs, before the values.
    output : pathlib.Path or None
        The file for the value, of one key only.
    print_result : callable
    proven : bool, optional
        Whether it is proven that a key is not there.

    Returns
    -------
    int
        `OK`, or `NOT_FOUND` if a key is not there.
    """
    missing = sum(value is None for value in found)
    written = None if missing else output
    if output is not None and found[0] is not None:
        write_output(output, found[0])
    if output == STANDARD:
        if missing:
            complain("the table has no such key" + (" (proven)" if proven else ""))
        return NOT_FOUND if missing else OK
    names = [os.fsdecode(key) for key in keys]
    rows = [
        {"key": name, "found": value is not None}
        | ({} if written or value is None else _for_programs(value))
        for name, value in zip(names, found, strict=True)
    ]
    absent = "not there (proven)" if proven else "not there"

    def show(console: Console) -> None:
        # Bytes that are no text are escaped here, since the width of a column is that of its text.
        shown = [
            (key.decode(errors="backslashreplace"), absent if value is None else show_value(value))
            for key, value in zip(keys, found, strict=True)
        ]
        show_rows(console, ("key", "value"), shown, written)

    data = {**about, "values": rows} | ({"output": os.fspath(written)} if written else {})
    print_result(data, show)
    return NOT_FOUND if missing else OK


def _for_programs(value: bytes) -> dict[str, Any]:
    row = as_row(value)
    return {"value": as_text(value), "hex": value.hex()} | ({} if row is None else {"row": row})


def show_rows(
    console: Console,
    columns: tuple[str, str],
    rows: Sequence[tuple[str, str | Table]],
    written: Path | None,
) -> None:
    """Show rows of two columns, and where their bytes were written.

    Parameters
    ----------
    console : rich.console.Console
    columns : tuple of str
        The headings.
    rows : sequence of tuple of (str or rich.table.Table)
    written : pathlib.Path or None
    """
    from rich.table import Table

    # Lines between rows of which one has several lines of its own.
    shown = Table(show_lines=any(isinstance(cell, Table) for row in rows for cell in row))
    for column in columns:
        shown.add_column(column, overflow="fold")  # a long value is shown in full
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    if written:
        console.print(f"written to {written}", soft_wrap=True)
