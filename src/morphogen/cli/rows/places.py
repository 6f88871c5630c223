"""Where the entries of a table stand in the file that they come from."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from pathlib import Path
from typing import Literal


class Places:
    """The line or row of each entry, in little memory where entries follow each other.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    unit : {"line", "row"}
        What is counted, from 1.
    """

    def __init__(self, path: Path, unit: Literal["line", "row"]) -> None:
        self.path = path
        self._unit = unit
        # A run of entries on successive lines: its first entry, and that entry's line.
        self._entries = array("Q")
        self._numbers = array("Q")
        self._count = 0
        self._next = 0

    def __len__(self) -> int:
        return self._count

    def add(self, count: int, number: int) -> None:
        """Note entries that stand on successive lines.

        Parameters
        ----------
        count : int
            How many they are.
        number : int
            The line or row of the first.
        """
        if not count:
            return
        if number != self._next:
            self._entries.append(self._count + 1)
            self._numbers.append(number)
        self._count += count
        self._next = number + count

    def name(self, entry: int) -> str:
        """Name the line or row of an entry: "line 7".

        Parameters
        ----------
        entry : int
            Its number, from 1.

        Returns
        -------
        str
        """
        return f"{self._unit} {self._number(entry)}"

    def place(self, number: int) -> str:
        """Name a line or row with its file, at the beginning of a message.

        Parameters
        ----------
        number : int
            Of the line or row, from 1.

        Returns
        -------
        str
            ``rows.csv:7`` or ``rows.parquet row 7``.
        """
        return f"{self.path}:{number}" if self._unit == "line" else f"{self.path} row {number}"

    def of_entry(self, entry: int) -> str:
        """Name the place of an entry, at the beginning of a message.

        Parameters
        ----------
        entry : int
            Its number, from 1.

        Returns
        -------
        str
        """
        return self.place(self._number(entry))

    def _number(self, entry: int) -> int:
        run = bisect_right(self._entries, entry) - 1
        return self._numbers[run] + entry - self._entries[run]
