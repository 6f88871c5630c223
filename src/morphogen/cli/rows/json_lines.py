"""Entries of JSON Lines: a file with one JSON object on each line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from morphogen.cli.rows.lines import Lines
from morphogen.cli.rows.options import RowOptions
from morphogen.cli.rows.places import Places

_BLANK = " \t\r"
_KINDS = {dict: "an object", list: "an array", bool: "true or false", int: "a number"}


def read_json_lines(
    lines: Lines, options: RowOptions, places: Places
) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """Read the entries of a file of JSON Lines.

    Parameters
    ----------
    lines : Lines
        Its text.
    options : RowOptions
        The fields that are wanted. Whole rows are taken as they stand there.
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
        If a line is no JSON object or has no such field. The message names the line, and no key
        or value.
    """
    decode = json.JSONDecoder(
        object_pairs_hook=_object,
        parse_constant=_no_constant,
        # Nobody looks at a number, which may have a million digits.
        parse_int=_number,
        parse_float=_number,
    ).raw_decode
    names = [("--key", options.key)]
    if options.value is not None:
        names.append(("--value", options.value))
    number = 1
    for block in lines:
        numbers, texts = _rows_of(block, number)
        found = _read_together(decode, names, texts)
        if found is None:
            found = _read_each(decode, names, texts, numbers, places)
        _note(numbers, places)
        yield found[0], texts if options.value is None else found[1]
        number += block.count("\n")
    if not len(places):
        raise ValueError(f"{places.path}: no line has a JSON object")


def _rows_of(block: str, first: int) -> tuple[Sequence[int], list[str]]:
    """The lines that have a row, and their numbers."""
    texts = [line.strip(_BLANK) for line in block.removesuffix("\n").split("\n")]
    numbers: Sequence[int] = range(first, first + len(texts))
    if not all(texts):
        numbers = [number for number, text in zip(numbers, texts, strict=True) if text]
        texts = [text for text in texts if text]
    return numbers, texts


def _note(numbers: Sequence[int], places: Places) -> None:
    if isinstance(numbers, range):
        places.add(len(numbers), numbers.start)
        return
    for number in numbers:
        places.add(1, number)


def _read_together(
    decode: Any, names: list[tuple[str, str]], texts: list[str]
) -> list[list[str]] | None:
    """The fields of all lines; None if a line has a fault."""
    try:
        rows = [decode(text) for text in texts]
        found = [[row[name] for row, _ in rows] for _, name in names]
        for fields in found:
            "".join(fields).encode()  # fails where one is no text, or has half of a pair
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if [end for _, end in rows] == [*map(len, texts)] else None


def _read_each(
    decode: Any,
    names: list[tuple[str, str]],
    texts: list[str],
    numbers: Sequence[int],
    places: Places,
) -> list[list[str]]:
    """The same, line by line, to name the one that has a fault."""
    found: list[list[str]] = [[] for _ in names]
    for number, text in zip(numbers, texts, strict=True):
        where = places.place(number)
        row = _decode(decode, text, where)
        for (option, name), fields in zip(names, found, strict=True):
            fields.append(_text(row, option, name, where))
    return found


class _NotJsonError(ValueError):
    pass


def _decode(decode: Any, line: str, where: str) -> dict[str, object]:
    try:
        row, end = decode(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}: not JSON from column {error.pos + 1} on: {error.msg.strip(': ')}"
        ) from None
    except _NotJsonError as error:
        raise ValueError(f"{where}: {error}") from None
    except RecursionError:
        raise ValueError(f"{where}: the JSON is nested too deeply") from None
    if end != len(line):
        raise ValueError(f"{where}: more than one JSON value, from column {end + 1} on")
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a line must be a JSON object, not {_kind(row)}")
    return row


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotJsonError("two fields of an object have one name")
    return found


def _no_constant(name: str) -> None:
    raise _NotJsonError(f"not JSON: it has no {name}")


def _number(text: str) -> int:
    return 0


def _text(row: dict[str, object], option: str, name: str, where: str) -> str:
    field = row.get(name, row)  # which no field is
    if type(field) is not str:
        if field is row:
            raise ValueError(f"{where}: {option}: the object has no field {name!r}")
        raise ValueError(f"{where}: field {name!r} is {_kind(field)}, not text")
    try:
        field.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where}: field {name!r} has half of a surrogate pair") from None
    return field


def _kind(value: object) -> str:
    return "null" if value is None else _KINDS.get(type(value), "text")
