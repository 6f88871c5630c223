"""Entries of an SQLite database, which is only read."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from morphogen.cli.rows.json_objects import ObjectWriter, mixed_column
from morphogen.cli.rows.messages import one_line
from morphogen.cli.rows.options import RowOptions
from morphogen.cli.rows.places import Places
from morphogen.progress import Progress

_MAGIC = b"SQLite format 3\0"
_READ_VERSION = 19  # its place in the file
_WITH_LOG = b"\x02"
_AT_A_TIME = 1024  # rows
_BATCH = 1 << 21  # bytes of keys and values, where rows are long
_MAX_FIELD = 1 << 27  # bytes
_STEPS = 100_000  # of SQLite's machine between two looks for a signal
_KINDS = {int: "an integer", float: "a number", type(None): "null"}

Batch = tuple[Sequence[bytes], Sequence[bytes] | Sequence[str]]


def read_sqlite(
    file: IO[bytes], head: bytes, options: RowOptions, places: Places, progress: Progress
) -> Iterator[Batch]:
    """Read the entries of an SQLite database.

    Parameters
    ----------
    file : binary file
        The database.
    head : bytes
        Its first bytes.
    options : RowOptions
        The columns that are wanted, and the table or query.
    places : Places
        Is told the rows of the entries.
    progress : callable
        Called with the rows read and those in all.

    Yields
    ------
    tuple of sequence of (bytes or str)
        Keys and values, some at a time.

    Raises
    ------
    ValueError
        If it is no such database, or a field is neither text nor bytes. The message names the row,
        and no key or value.
    """
    signals: list[BaseException] = []
    # SQLite takes an empty file for an empty database.
    if not head.startswith(_MAGIC):
        raise ValueError(f"{places.path}: not an SQLite database: it begins otherwise")
    try:
        with closing(_open(file, places.path)) as database:
            _restrict(database, options, signals)
            yield from _read(database, options, places, progress)
    except (sqlite3.Error, sqlite3.Warning) as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise (signals or [KeyboardInterrupt()])[0] from None
        raise ValueError(f"{places.path}: SQLite: {one_line(str(error))}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{places.path}: SQLite: a name is not UTF-8") from None


def _open(file: IO[bytes], path: Path) -> sqlite3.Connection:
    if not file.seekable():
        database = sqlite3.connect(":memory:", isolation_level=None)
        database.deserialize(file.read())
        return database
    # Its journal stands beside the file, wherever a link to it is.
    real = path.resolve()
    name = quote(os.fsencode(real))
    file.seek(_READ_VERSION)
    log = real.with_name(f"{real.name}-wal")
    if file.read(1) == _WITH_LOG and not (log.exists() and log.stat().st_size):
        # SQLite would make a log to find out that there is none, and leave it there.
        name += "?immutable=1&mode=ro"
    else:
        name += "?mode=ro"
    return sqlite3.connect(f"file:{name}", uri=True, isolation_level=None)


def _restrict(
    database: sqlite3.Connection, options: RowOptions, signals: list[BaseException]
) -> None:
    """Let nothing be written or loaded, whatever a query or a hostile file says."""

    def look() -> Iterator[int]:
        while True:
            try:
                yield 0
            except GeneratorExit:
                return
            except BaseException as signal:  # raised by its handler, when Python goes on here
                signals.append(signal)
                yield 1

    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON"):
        database.execute(f"PRAGMA {pragma}")
    database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(_MAX_FIELD, 2 * options.most))
    # However long a query takes, Python's handlers of signals run now and then.
    looking = look()
    next(looking)
    database.set_progress_handler(looking.__next__, _STEPS)
    # Text that is no UTF-8 comes as it is, and no message shows it.
    database.text_factory = bytes


def _read(
    database: sqlite3.Connection, options: RowOptions, places: Places, progress: Progress
) -> Iterator[Batch]:
    source, total = _source(database, options, places.path)
    cursor = database.execute(source)
    if cursor.description is None:
        raise ValueError(f"{places.path}: --query gives no rows")
    names = [column[0] for column in cursor.description]
    columns = options.find(str(places.path), names)
    write = ObjectWriter(names) if options.value is None else None
    count = 1
    while rows := cursor.fetchmany(count):
        first = len(places) + 1
        fields = list(zip(*rows, strict=True))
        for at in columns:
            _check(fields[at], names[at], places, first)
        keys = fields[columns[0]]
        values = (
            fields[columns[1]] if write is None else write(_as_json(fields, names, places, first))
        )
        places.add(len(rows), first)
        yield keys, values
        mean = sum(map(len, values)) // len(rows) + 1
        count = max(1, min(_AT_A_TIME, _BATCH // mean))
        if total:
            progress(min(len(places), total), total)
    if not len(places):
        raise ValueError(f"{places.path}: there is no row")


def _source(database: sqlite3.Connection, options: RowOptions, path: Path) -> tuple[str, int]:
    """The query, and how many rows it gives, or 0 if only running it tells."""
    if options.query is not None:
        try:
            options.query.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{path}: --query is not UTF-8") from None
        return options.query, 0
    tables = [
        name.decode("utf-8", "backslashreplace")
        for (name,) in database.execute(
            "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') "
            "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
        )
    ]
    table = options.sql_table
    if table is None and len(tables) == 1:
        table = tables[0]
    if table is None or table not in tables:
        given = "give --sql-table or --query" if table is None else f"there is no table {table!r}"
        has = f"it has {', '.join(map(repr, tables[:20])) or 'none'}"
        raise ValueError(f"{path}: {given}: {has}{', ...' if len(tables) > 20 else ''}")
    quoted = '"' + table.replace('"', '""') + '"'
    total: int = database.execute(f"SELECT count(*) FROM {quoted}").fetchone()[0]
    # Columns that are not there would be taken for text, so all are asked for.
    return f"SELECT * FROM {quoted}", total


def _check(fields: Sequence[object], name: str, places: Places, first: int) -> None:
    if {*map(type, fields)} != {bytes}:
        at = next(at for at, field in enumerate(fields) if type(field) is not bytes)
        raise ValueError(
            f"{places.place(first + at)}: column {name!r} is {_KINDS[type(fields[at])]}, not text "
            f"or bytes (--query may CAST it AS TEXT)"
        )


def _as_json(
    fields: Sequence[Sequence[Any]], names: Sequence[str], places: Places, first: int
) -> Iterator[Iterator[str]]:
    for name, column in zip(names, fields, strict=True):

        def complain(index: int, why: str, name: str = name) -> ValueError:
            return ValueError(f"{places.place(first + index)}: column {name!r} {why}")

        yield mixed_column(column, complain)
