"""The file that a benchmark writes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import TextIO

from morphogen.bench.describe import describe_chunks


class BenchmarkCsv:
    """Header lines, the line of columns, then one row after the other.

    Parameters
    ----------
    file : text file
        Opened with ``newline=""``.
    header : mapping of str to object
        What holds for all rows.
    columns : sequence of str
    """

    def __init__(self, file: TextIO, header: Mapping[str, object], columns: Sequence[str]) -> None:
        self._file = file
        self._columns = columns
        self._writer = csv.writer(file, lineterminator="\n")
        for key, value in header.items():
            file.write(f"# {key}: {value}\n")
        self._writer.writerow(columns)
        file.flush()

    def write(self, row: object) -> None:
        """Write the row that has the columns as attributes, so that an interrupted run has it."""
        self._writer.writerow([_text(getattr(row, column)) for column in self._columns])
        self._file.flush()


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return describe_chunks(value) if isinstance(value, tuple) else str(value).lower()
