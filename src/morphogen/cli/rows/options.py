"""What a command says about the rows that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FORMATS = ("csv", "tsv", "jsonl", "parquet", "arrow", "sqlite")
TEXTS = FORMATS[:3]
_LISTED = 20  # names of columns in a message


@dataclass(frozen=True, slots=True)
class RowOptions:
    """The columns of the entries, and how a file is to be read.

    Parameters
    ----------
    key : str
        The column of the keys.
    value : str or None
        The column of the values; None for whole rows as JSON objects.
    format : str or None, optional
        One of `FORMATS`; by default the file's beginning and the ending of its name tell it.
    delimiter : str or None, optional
        The character between columns of CSV.
    columns : tuple of str or None, optional
        The names of the columns of a CSV file that has no heading.
    sql_table, query : str or None, optional
        The table of an SQLite database, or the SQL that gives its rows.
    most : int, optional
        Bytes of the largest value that a table could hold.
    """

    key: str
    value: str | None = None
    format: str | None = None
    delimiter: str | None = None
    columns: tuple[str, ...] | None = None
    sql_table: str | None = None
    query: str | None = None
    most: int = 1 << 17

    def find(self, where: str, names: Sequence[str], *, listed: bool = True) -> list[int]:
        """Find the columns of the keys and the values.

        Parameters
        ----------
        where : str
            The place, for messages.
        names : sequence of str
            The names of all columns.
        listed : bool, optional
            Whether a message may have them: if a heading was forgotten, they are somebody's keys.

        Returns
        -------
        list of int
            The key's column, and the value's unless whole rows are taken.

        Raises
        ------
        ValueError
            If a column is not there once, or whole rows have two fields of one name.
        """
        if self.value is None and len(set(names)) < len(names):
            self._find(where, "--key", self.key, names, listed)  # says it better
            raise ValueError(f"{where}: two columns have one name, and a row becomes a JSON object")
        found = [self._find(where, "--key", self.key, names, listed)]
        if self.value is not None:
            found.append(self._find(where, "--value", self.value, names, listed))
        return found

    def _find(self, where: str, option: str, name: str, names: Sequence[str], listed: bool) -> int:
        count = names.count(name)
        if count == 1:
            return names.index(name)
        if count:
            raise ValueError(f"{where}: {count} columns have the name {name!r} that {option} gives")
        hint = ""
        if listed:
            shown = ", ".join(map(repr, names[:_LISTED]))
            hint = f": they are {shown}{', ...' if len(names) > _LISTED else ''}"
        elif len(names) == 1:
            hint = " (--delimiter says what stands between columns)"
        raise ValueError(
            f"{where}: {option}: none of the {len(names)} columns is named {name!r}{hint}"
        )
