"""Entries of Parquet, Arrow and Feather files, by pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any

from morphogen.checks import needs_extra
from morphogen.cli.rows.json_objects import ObjectWriter, mixed_column
from morphogen.cli.rows.messages import one_line
from morphogen.cli.rows.options import RowOptions
from morphogen.cli.rows.places import Places
from morphogen.progress import Progress

_AT_A_TIME = 1024  # rows
_FILE = b"ARROW1"

Batch = tuple[Sequence[bytes], Sequence[bytes] | Sequence[str]]


def read_arrow(
    file: IO[bytes], head: bytes, options: RowOptions, kind: str, places: Places, progress: Progress
) -> Iterator[Batch]:
    """Read the entries of a Parquet or Arrow file.

    Parameters
    ----------
    file : binary file
        Open at its beginning.
    head : bytes
        Its first bytes.
    options : RowOptions
        The columns that are wanted.
    kind : str
        ``parquet`` or ``arrow``.
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
    ModuleNotFoundError
        If pyarrow is not installed.
    OSError
        If the file cannot be read.
    ValueError
        If it is no such file, or a column holds neither text nor bytes. The message names the
        column or the row, and no key or value.
    """
    with needs_extra("arrow", f"{places.path}: {kind.capitalize()}"):
        import pyarrow
    try:
        if kind == "parquet":
            yield from _read_parquet(file, options, places, progress)
        else:
            yield from _read_ipc(file, head, options, places, progress)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(places, kind, error) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(places, kind, error) from None
    if not len(places):
        raise ValueError(f"{places.path}: there is no row")


def _damaged(places: Places, kind: str, error: Exception) -> ValueError:
    after = f" after row {len(places)}" if len(places) else ""
    return ValueError(
        f"{places.path}: not a whole {kind.capitalize()} file{after}: {one_line(str(error))}"
    )


def _read_parquet(
    file: Any, options: RowOptions, places: Places, progress: Progress
) -> Iterator[Batch]:
    import pyarrow.parquet

    # With buffers it holds less of a group of rows, but takes as much as a damaged page claims.
    parquet = pyarrow.parquet.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
    reader = _Reader(parquet.schema_arrow, options, places)
    total = parquet.metadata.num_rows
    for batch in parquet.iter_batches(_AT_A_TIME, columns=reader.wanted):
        yield reader.entries(batch)
        progress(min(len(places), total), total)


def _read_ipc(
    file: Any, head: bytes, options: RowOptions, places: Places, progress: Progress
) -> Iterator[Batch]:
    import pyarrow.ipc

    if not head.startswith(_FILE):
        stream = pyarrow.ipc.open_stream(file)
        reader = _Reader(stream.schema, options, places)
        for batch in stream:
            yield from reader.parts(batch)
        return
    opened = pyarrow.ipc.open_file(file)
    reader = _Reader(opened.schema, options, places)
    total = opened.num_record_batches
    for number in range(total):
        progress(number, total)
        yield from reader.parts(opened.get_batch(number))


class _Reader:
    """Takes entries from batches of records."""

    def __init__(self, schema: Any, options: RowOptions, places: Places) -> None:
        self._places = places
        names = schema.names
        found = options.find(str(places.path), names)
        for at in found:
            if not _is_text(schema.field(at).type):
                kind = one_line(str(schema.field(at).type))
                raise ValueError(
                    f"{places.path}: column {names[at]!r} is {kind}, not text or bytes"
                )
        self._write = None
        self._chosen: list[str] = [names[at] for at in found]
        self.wanted = self._chosen
        if options.value is None:
            for name, field in zip(names, schema, strict=True):
                if not _has_json(field.type):
                    raise ValueError(
                        f"{places.path}: column {name!r} is {one_line(str(field.type))}, which a "
                        f"JSON object cannot hold: give --value"
                    )
            self.wanted = names
            self._write = ObjectWriter(names)

    def parts(self, batch: Any) -> Iterator[Batch]:
        """Entries of a batch that may be large."""
        for start in range(0, batch.num_rows, _AT_A_TIME):
            yield self.entries(batch.slice(start, _AT_A_TIME))

    def entries(self, batch: Any) -> Batch:
        """Keys and values of a batch."""
        first = len(self._places) + 1
        # A damaged one may name bytes outside of its buffers.
        batch.validate(full=True)
        keys, *rest = (self._bytes(batch, name, first) for name in self._chosen)
        values: Sequence[bytes] | Sequence[str]
        if self._write is None:
            (values,) = rest
        else:
            values = self._write([self._json(batch, name, first) for name in self.wanted])
        self._places.add(len(keys), first)
        return keys, values

    def _bytes(self, batch: Any, name: str, first: int) -> list[bytes]:
        import pyarrow

        column = batch.column(batch.schema.get_field_index(name))
        if column.null_count:
            row = first + column.is_null().index(True).as_py()
            raise ValueError(
                f"{self._places.place(row)}: column {name!r} is null, not text or bytes"
            )
        found: list[bytes] = column.cast(pyarrow.large_binary()).to_pylist()
        return found

    def _json(self, batch: Any, name: str, first: int) -> Iterator[str]:
        import pyarrow

        column = batch.column(batch.schema.get_field_index(name))
        if pyarrow.types.is_temporal(column.type):
            # Python's own types end at microseconds.
            texts = column.cast(pyarrow.string()).to_pylist()
            fields = [text and text.replace(" ", "T") for text in texts]
        else:
            fields = column.to_pylist()

        def complain(index: int, why: str) -> ValueError:
            return ValueError(f"{self._places.place(first + index)}: column {name!r} {why}")

        return mixed_column(fields, complain)


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return any(
        is_kind(kind)
        for is_kind in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_binary,
            types.is_large_binary,
            types.is_binary_view,
            types.is_fixed_size_binary,
        )
    )


def _has_json(kind: Any) -> bool:
    from pyarrow import types

    if _is_text(kind):
        return True
    if types.is_dictionary(kind):
        return _has_json(kind.value_type)
    if types.is_struct(kind):
        return all(_has_json(field.type) for field in kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _has_json(kind.value_type)
    return any(
        is_kind(kind)
        for is_kind in (
            types.is_integer,
            types.is_floating,
            types.is_boolean,
            types.is_null,
            types.is_decimal,
            types.is_date,
            types.is_time,
            types.is_timestamp,
        )
    )
