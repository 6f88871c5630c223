"""Rows of a CSV file as the entries of a keyword table."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from morphogen.checks import names_file
from morphogen.progress import Progress

_STEP = 1 << 12  # rows between two calls of progress
_MAX_FIELD = 1 << 17  # characters; Python's own limit too
_MAX_LINE = 1 << 28  # characters; a line without an end would fill the memory
# What is taken for the CSV file that it holds or was made from, by its beginning.
_OTHERS = {
    b"\x1f\x8b": "a gzip file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"PAR1\x15": "a Parquet file",
    b"SQLite format 3\0": "an SQLite database",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}


def read_items(
    path: Path,
    key: str,
    value: str | None,
    *,
    page_size: int,
    delimiter: str = ",",
    progress: Progress,
) -> list[tuple[bytes, bytes]]:
    """Read the entries of a keyword table from a CSV file.

    Parameters
    ----------
    path : pathlib.Path
        UTF-8, with or without a byte order mark. The first row names the columns.
    key : str
        The column of the keys.
    value : str or None
        The column of the values; None for the whole row as a JSON object.
    page_size : int
        Bytes that an entry must fit.
    delimiter : str, optional
        The character between columns.
    progress : callable
        Called with the bytes read and those in all.

    Returns
    -------
    list of tuple of bytes
        Keys and values, as `morphogen.keyword.build` takes them.

    Raises
    ------
    OSError
        If the file cannot be read. It names the file.
    ValueError
        If the file is no such CSV file. The message names the line, and no key or value.
    """
    with (
        names_file(path),
        # Bytes that are not UTF-8 become lone surrogates, so that a line with them can be named.
        path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file,
        _field_limit(page_size),
    ):
        lines = _lines(file, path, max(_MAX_LINE, 8 * page_size))
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            return _collect(reader, path, key, value, page_size, lambda: _report(file, progress))
        except csv.Error as error:
            raise ValueError(f"{path}:{reader.line_num}: {error}") from None


def _lines(file: TextIO, path: Path, most: int) -> Iterator[str]:
    for number, line in enumerate(iter(partial(file.readline, most), ""), start=1):
        if number == 1:
            beginning = line[:16].encode(errors="surrogateescape")
            for magic, name in _OTHERS.items():
                if beginning.startswith(magic):
                    raise ValueError(f"{path}: not CSV in UTF-8: it begins as {name} does")
        if len(line) == most:
            raise ValueError(f"{path}:{number}: the line has {most} characters or more")
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError as error:
                guess = _guess(line.encode(errors="surrogateescape"))
                raise ValueError(
                    f"{path}:{number}: not UTF-8 from column {error.start + 1} on: {guess}"
                ) from None
        yield line


def _guess(line: bytes) -> str:
    """What a line may be that is not UTF-8."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return "it ends amid a character: the file was cut short or has another encoding"
    # In Western languages a letter with an accent stands among letters without, or beside one.
    if max(map(len, re.findall(rb"[\x80-\xff]+", line))) <= 2:
        # Windows-1252 has letters and quotation marks where ISO 8859-1 has control characters.
        if re.search(rb"[\x80-\x9f]", line):
            return "it may be Windows-1252 (iconv -f WINDOWS-1252 -t UTF-8 converts it)"
        return "it may be ISO 8859-1, called Latin-1 (iconv -f LATIN1 -t UTF-8 converts it)"
    return "it may be an encoding such as Windows-1251, GB 18030 or Shift JIS (see iconv)"


def _report(file: TextIO, progress: Progress) -> None:
    if file.seekable():  # a pipe has no size
        progress(file.buffer.tell(), os.fstat(file.fileno()).st_size)


@contextmanager
def _field_limit(page_size: int) -> Iterator[None]:
    """Let a field be as large as a page: Python's limit is one for the process."""
    before = csv.field_size_limit(min(max(_MAX_FIELD, page_size), 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _collect(
    reader: Any,
    path: Path,
    key_name: str,
    value_name: str | None,
    page_size: int,
    report: Callable[[], None],
) -> list[tuple[bytes, bytes]]:
    from morphogen.keyword.layout import HEAD_BYTES

    heading: list[str] = next(reader, [])
    if not heading:
        raise ValueError(f"{path}: the first line must name the columns, and is empty")
    key_at = _column(path, heading, "--key", key_name)
    value_at = None if value_name is None else _column(path, heading, "--value", value_name)
    if value_at is None and len(set(heading)) < len(heading):
        raise ValueError(f"{path}:1: two columns have one name, and a row becomes a JSON object")
    seen: dict[bytes, int] = {}
    items: list[tuple[bytes, bytes]] = []
    line = reader.line_num + 1
    for row in reader:
        # An entry of several lines is named by its first, and empty lines are none.
        if row:
            if len(row) != len(heading):
                raise ValueError(
                    f"{path}:{line}: the row has {len(row)} fields, the heading {len(heading)}"
                )
            key = row[key_at].encode()
            first = seen.setdefault(key, line)
            if first != line:
                raise ValueError(f"{path}:{line}: the key is that of line {first}")
            value = (_row_as_json(heading, row) if value_at is None else row[value_at]).encode()
            if HEAD_BYTES + len(value) > page_size:
                raise ValueError(
                    f"{path}:{line}: a value of {len(value)} bytes takes {HEAD_BYTES + len(value)} "
                    f"in the table, more than a page of {page_size} bytes has room for: give "
                    f"--page-size {HEAD_BYTES + len(value)} or more"
                )
            items.append((key, value))
            if len(items) % _STEP == 0:
                report()
        line = reader.line_num + 1
    if not items:
        raise ValueError(f"{path}: no row follows the heading")
    return items


def _column(path: Path, heading: Sequence[str], option: str, name: str) -> int:
    count = heading.count(name)
    if count == 1:
        return heading.index(name)
    if count:
        raise ValueError(f"{path}:1: {count} columns have the name {name!r} that {option} gives")
    # Their names are left out: if the heading was forgotten, they are somebody's keys.
    hint = " (--delimiter says what stands between columns)" if len(heading) == 1 else ""
    raise ValueError(
        f"{path}:1: {option}: none of the {len(heading)} columns is named {name!r}{hint}"
    )


def _row_as_json(heading: Sequence[str], row: Sequence[str]) -> str:
    fields = dict(zip(heading, row, strict=True))
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
