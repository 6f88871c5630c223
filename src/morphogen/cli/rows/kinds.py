"""The kind of a file of rows, told by its beginning, by the ending of its name, or by the user."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from morphogen.checks import names_file
from morphogen.cli.rows.arrow import read_arrow
from morphogen.cli.rows.compression import Stream, beginning
from morphogen.cli.rows.delimited import read_delimited
from morphogen.cli.rows.json_lines import read_json_lines
from morphogen.cli.rows.lines import Lines
from morphogen.cli.rows.options import TEXTS, RowOptions
from morphogen.cli.rows.places import Places
from morphogen.cli.rows.sqlite import read_sqlite
from morphogen.progress import Progress

_HEAD = 16  # bytes that tell the kind of a file
_BEGINNINGS = {
    b"SQLite format 3\0": "sqlite",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",  # as a stream
}
_ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".db": "sqlite",
}
_COMPRESSED = {".gz", ".zst", ".zstd"}


@dataclass(frozen=True, slots=True)
class Rows:
    """The entries of a file, to be read once.

    Parameters
    ----------
    batches : iterator of tuple of sequence
        Keys and values, as text or bytes, some at a time.
    places : Places
        Of the entries that were read.
    """

    batches: Iterator[tuple[Sequence[bytes | str], Sequence[bytes | str]]]
    places: Places


@contextmanager
def open_rows(path: Path, options: RowOptions, progress: Progress) -> Iterator[Rows]:
    """Open a file of rows. The memory that reading takes does not grow with it.

    Parameters
    ----------
    path : pathlib.Path
        CSV and the like, JSON Lines, Parquet, Arrow or SQLite. The first three may be compressed,
        and all but SQLite, whose journal stands beside it, may come through a pipe.
    options : RowOptions
        The columns of the entries, and how the file is to be read.
    progress : callable
        Called with the work done and the work in all, where the file tells that.

    Yields
    ------
    Rows

    Raises
    ------
    ModuleNotFoundError
        If reading it needs an extra.
    OSError
        If the file cannot be read. It names the file.
    ValueError
        If the file is not what it should be. The message names the line, row or column, and no key
        or value.
    """
    with names_file(path), path.open("rb") as opened:
        head, file = beginning(opened, _HEAD)
        kind = options.format or _guess(path, head, options)
        if kind in ("", *TEXTS):
            stream = Stream(path, file, head)
            if not kind:
                # The standard input has no ending, and no heading begins so.
                kind = "jsonl" if stream.peek(_HEAD).lstrip().startswith(b"{") else "csv"
            _check(kind, options)
            yield _text_rows(path, file, stream, kind, options, progress)
            return
        _check(kind, options)
        places = Places(path, "row")
        if kind == "sqlite":
            yield Rows(read_sqlite(file, head, options, places, progress), places)
        else:
            with nullcontext(file) if file.seekable() else _copy(file) as copy:
                yield Rows(read_arrow(copy, head, options, kind, places, progress), places)


def _guess(path: Path, head: bytes, options: RowOptions) -> str:
    """The kind; nothing where only the text itself may tell."""
    for magic, kind in _BEGINNINGS.items():
        if head.startswith(magic):
            return kind
    endings = [ending.lower() for ending in path.suffixes]
    if endings and endings[-1] in _COMPRESSED:
        endings.pop()
    if endings and endings[-1] in _ENDINGS:
        return _ENDINGS[endings[-1]]
    return "" if options.delimiter is None and options.columns is None else "csv"


def _check(kind: str, options: RowOptions) -> None:
    """Refuse options that say nothing about a file of this kind."""
    texts, databases = ("csv", "tsv"), ("sqlite",)
    for option, given, kinds in (
        ("--delimiter", options.delimiter, texts),
        ("--columns", options.columns, texts),
        ("--sql-table", options.sql_table, databases),
        ("--query", options.query, databases),
    ):
        if given is not None and kind not in kinds:
            raise ValueError(f"{option} is for {' and '.join(kinds)}, not {kind}")


def _text_rows(
    path: Path,
    file: IO[bytes],
    stream: Stream,
    kind: str,
    options: RowOptions,
    progress: Progress,
) -> Rows:
    total = os.fstat(file.fileno()).st_size if file.seekable() else 0

    def report() -> None:
        if total:  # a pipe has no size
            progress(min(file.tell(), total), total)

    name = "JSON" if kind == "jsonl" else kind.upper()
    lines = Lines(path, stream, name, options.most, report, returns=kind != "jsonl")
    places = Places(path, "line")
    if kind == "jsonl":
        return Rows(read_json_lines(lines, options, places), places)
    delimiter = options.delimiter or ("\t" if kind == "tsv" else ",")
    return Rows(read_delimited(lines, options, delimiter, places), places)


def _copy(file: IO[bytes]) -> IO[bytes]:
    """What comes through a pipe, in memory: it may be private, and is not copied to a disk."""
    import shutil

    copy = os.fdopen(os.memfd_create("morphogen"), "w+b")
    shutil.copyfileobj(file, copy)
    copy.seek(0)
    return copy
