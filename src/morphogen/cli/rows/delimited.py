"""Entries of CSV, TSV and similar files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from itertools import chain, islice
from operator import itemgetter
from typing import Any

import numpy as np

from morphogen.cli.rows.json_objects import ObjectWriter, text_column
from morphogen.cli.rows.lines import BLOCK, Lines, count_ends
from morphogen.cli.rows.options import RowOptions
from morphogen.cli.rows.places import Places

_AT_A_TIME = 512  # rows
_MAX_FIELD = 1 << 17  # characters; Python's own limit too
_FEED = ord("\n")


def read_delimited(
    lines: Lines, options: RowOptions, delimiter: str, places: Places
) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """Read the entries of a CSV file.

    Parameters
    ----------
    lines : Lines
        Its text.
    options : RowOptions
        The columns that are wanted.
    delimiter : str
        The character between columns.
    places : Places
        Is told the lines of the entries.

    Yields
    ------
    tuple of sequence of str
        Keys and values, some at a time.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no such CSV file. The message names the line, and no key or value.
    """
    rows = _Rows(lines, options, delimiter, places)
    with _field_limit(options.most):
        blocks = iter(lines)
        yield from rows.of_plain_blocks(blocks)
        yield from rows.of_reader(blocks)
    if not len(places):
        follows = "" if options.columns else " follows the heading"
        raise ValueError(f"{places.path}: no row{follows}")


@contextmanager
def _field_limit(most: int) -> Iterator[None]:
    """Let a field be as large as a value: Python's limit is one for the process."""
    before = csv.field_size_limit(min(max(_MAX_FIELD, most), 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


class _Rows:
    def __init__(self, lines: Lines, options: RowOptions, delimiter: str, places: Places) -> None:
        self._lines = lines
        self._options = options
        self._delimiter = delimiter
        self._places = places
        self._line = 1  # of the row that comes next
        self._left: list[str] = []  # the block that was not plain
        self._width = 0
        if options.columns:
            self._name(options.columns)

    def _name(self, heading: Sequence[str]) -> None:
        where = f"{self._places.path}:1" if not self._options.columns else "--columns"
        self._columns = self._options.find(where, heading, listed=False)
        self._width = len(heading)
        self._write = ObjectWriter(heading) if self._options.value is None else None

    def of_plain_blocks(
        self, blocks: Iterator[str]
    ) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        """Take rows without quotes apart in half of the reader's time, up to the first other."""
        if not self._delimiter.isascii():
            return
        for block in blocks:
            rows = block
            if not self._width:
                heading, _, rows = block.partition("\n")
                if not heading or not self._is_quiet(heading):
                    self._left.append(block)
                    return
                self._name(heading.split(self._delimiter))
                self._line = 2
            if not rows:
                continue
            if not self._is_plain(rows):
                self._left.append(rows)
                return
            fields = rows.replace("\n", self._delimiter).split(self._delimiter)
            if rows.endswith("\n"):
                fields.pop()
            columns = [fields[at :: self._width] for at in range(self._width)]
            yield self._entries(columns, self._line)
            self._line += len(columns[0])

    def _is_quiet(self, text: str) -> bool:
        return '"' not in text and "\r" not in text and len(text) < _MAX_FIELD

    def _is_plain(self, rows: str) -> bool:
        """Whether each line is a row, and each field as it stands there."""
        if '"' in rows or "\r" in rows:
            return False
        raw = np.frombuffer(rows.encode(), dtype=np.uint8)
        feeds = raw == _FEED
        ends = np.flatnonzero(feeds | (raw == ord(self._delimiter)))
        if not feeds[-1]:
            ends, feeds = np.append(ends, len(raw)), np.append(feeds, True)
        sizes = np.diff(ends, prepend=-1)
        if len(ends) % self._width or sizes.max() > _MAX_FIELD:
            return False
        last = feeds[ends].reshape(-1, self._width)
        # A line without anything is no row, and would pass for one of a single column.
        return bool(
            last[:, -1].all() and not last[:, :-1].any() and (self._width > 1 or sizes.min() > 1)
        )

    def of_reader(self, blocks: Iterator[str]) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        """Read all rows that are left."""
        texts = chain(self._left, blocks)
        # Lines end as Python's own reader of files has it, and keep their ends.
        reader = csv.reader(
            chain.from_iterable(StringIO(text, newline="") for text in texts),
            delimiter=self._delimiter,
            strict=True,
        )
        before = self._line - 1  # lines that were read without the reader
        try:
            if not self._width:
                heading = next(reader, [])
                if not heading:
                    raise ValueError(
                        f"{self._places.path}: the first line must name the columns, and is empty"
                    )
                self._name(heading)
                self._line = reader.line_num + 1
            while rows := self._take(reader):
                end = before + reader.line_num + 1
                if end - self._line != len(rows) or {*map(len, rows)} != {self._width}:
                    yield from self._one_by_one(rows)
                else:
                    yield self._entries_of_rows(rows, self._line)
                self._line = end
        except csv.Error as error:
            line = before + reader.line_num
            raise ValueError(f"{self._places.path}:{line}: {error}") from None

    def _take(self, reader: Any) -> list[list[str]]:
        """Some rows: as many as a block has, or few long ones."""
        size = self._lines.size
        rows: list[list[str]] = []
        while self._lines.size - size < BLOCK:
            more = list(islice(reader, _AT_A_TIME))
            if not more:
                break
            rows += more
        return rows

    def _one_by_one(self, rows: list[list[str]]) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        line = self._line
        for row in rows:
            # An entry of several lines is named by its first, and empty lines are none.
            if row:
                if len(row) != self._width:
                    named = "--columns" if self._options.columns else "the heading"
                    raise ValueError(
                        f"{self._places.path}:{line}: the row has {len(row)} fields, {named} "
                        f"{self._width}"
                    )
                yield self._entries_of_rows([row], line)
            line += 1 + sum(count_ends(field, "\r", "\n") for field in row)

    def _entries_of_rows(
        self, rows: list[list[str]], line: int
    ) -> tuple[Sequence[str], Sequence[str]]:
        if self._write is not None:
            return self._entries(list(zip(*rows, strict=True)), line)
        self._places.add(len(rows), line)
        keys, values = ([*map(itemgetter(at), rows)] for at in self._columns)
        return keys, values

    def _entries(
        self, columns: Sequence[Sequence[str]], line: int
    ) -> tuple[Sequence[str], Sequence[str]]:
        self._places.add(len(columns[0]), line)
        keys = columns[self._columns[0]]
        if self._write is None:
            return keys, columns[self._columns[1]]
        return keys, self._write(map(text_column, columns))
