"""Whole rows as JSON objects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any
from uuid import UUID

# Writes JSON as it stands in a value: short, and letters as they are.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class ObjectWriter:
    """Writes rows as JSON objects with the same names.

    Parameters
    ----------
    names : sequence of str
        Of the columns.
    """

    def __init__(self, names: Sequence[str]) -> None:
        fields = (encode_basestring(name).replace("%", "%%") + ":%s" for name in names)
        self._form = "{" + ",".join(fields) + "}"

    def __call__(self, columns: Iterable[Iterable[str]]) -> list[str]:
        """Write rows.

        Parameters
        ----------
        columns : iterable of iterable of str
            The JSON of each column's fields.

        Returns
        -------
        list of str
        """
        return [self._form % row for row in zip(*columns, strict=True)]


def text_column(fields: Iterable[str]) -> Iterator[str]:
    """Write text as JSON.

    Parameters
    ----------
    fields : iterable of str

    Returns
    -------
    iterator of str
    """
    return map(encode_basestring, fields)


def mixed_column(
    fields: Sequence[object], complain: Callable[[int, str], ValueError]
) -> Iterator[str]:
    """Write fields of any kind as JSON, bytes as text in UTF-8, and times as ISO 8601 has them.

    Parameters
    ----------
    fields : sequence of object
    complain : callable
        Called with the index of a field that JSON has no form for, and the reason; gives the error.

    Yields
    ------
    str

    Raises
    ------
    ValueError
        If a field has no form in JSON.
    """
    for index, field in enumerate(fields):
        try:
            # type, not isinstance, since True is an int.
            if type(field) is bytes:
                yield encode_basestring(field.decode())
            elif type(field) is str:
                yield encode_basestring(field)
            elif type(field) is int:
                yield str(field)
            else:
                yield _encode.encode(_plain(field))
        except UnicodeDecodeError:
            raise complain(index, "has bytes that are not UTF-8, which JSON cannot hold") from None
        except (TypeError, RecursionError) as error:
            raise complain(index, f"has no form in JSON: {error}") from None
        except ValueError:
            raise complain(index, "has a number that JSON cannot hold: inf or nan") from None


def _plain(field: object) -> Any:
    """The same of what JSON has."""
    if field is None or isinstance(field, (bool, int, float, str)):
        return field
    if isinstance(field, bytes):
        return field.decode()
    if isinstance(field, (datetime, date, time)):
        return field.isoformat()
    if isinstance(field, (Decimal, UUID)):
        return str(field)  # a reader would make a decimal number a binary one
    if isinstance(field, dict):
        return {_name(name): _plain(value) for name, value in field.items()}
    if isinstance(field, (list, tuple)):
        return [_plain(value) for value in field]
    raise TypeError(f"it is a {type(field).__name__}")


def _name(name: object) -> str:
    if isinstance(name, str):
        return name
    raise TypeError(f"a name is a {type(name).__name__}")
