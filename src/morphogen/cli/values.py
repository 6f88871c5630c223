"""Values that were found, as a terminal and a program can take them: text, a row, or bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN_BYTES = 16
_SPACES = {"\n", "\t"}  # which a terminal shows as it should


def as_text(value: bytes) -> str | None:
    """Decode a value.

    Parameters
    ----------
    value : bytes

    Returns
    -------
    str or None
        None if a terminal could not show it as it is.
    """
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    # A text from a file of another system is text, too.
    return text if _is_shown(text.replace("\r\n", "\n")) else None


def as_row(value: bytes) -> dict[str, Any] | None:
    """Parse a value that is a row of a table: a JSON object.

    Parameters
    ----------
    value : bytes

    Returns
    -------
    dict or None
        None if it is none, or one whose JSON another reader might take otherwise.
    """
    if not (value.startswith(b"{") and value.endswith(b"}")):
        return None
    try:
        row = json.loads(value, object_pairs_hook=_object)
        json.dumps(row, allow_nan=False)
    except (ValueError, RecursionError):  # of bytes that are not UTF-8, too
        return None
    return row if isinstance(row, dict) else None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("two fields have one name")
    return found


def show_value(value: bytes) -> str | Table:
    """Show a value to people: text as it is, a row as a table of its fields, bytes in hexadecimal.

    Parameters
    ----------
    value : bytes

    Returns
    -------
    str or rich.table.Table
    """
    row = as_row(value)
    if row:
        return _fields(row)
    text = as_text(value)
    return excerpt(value) if text is None else text.replace("\r\n", "\n")


def _fields(row: dict[str, Any]) -> Table:
    from rich.table import Table

    fields = Table.grid(padding=(0, 2))
    fields.add_column(overflow="fold", style="dim")
    fields.add_column(overflow="fold")
    for name, field in row.items():
        text = field if isinstance(field, str) else json.dumps(field, ensure_ascii=False)
        fields.add_row(_escaped(name), _escaped(text))
    return fields


def _escaped(text: str) -> str:
    """The same without what would move a terminal's cursor or change its colours."""
    return "".join(
        letter if _is_shown(letter) else letter.encode("unicode_escape").decode() for letter in text
    )


def _is_shown(text: str) -> bool:
    return text.isprintable() or all(letter.isprintable() or letter in _SPACES for letter in text)


def excerpt(content: bytes) -> str:
    """Show the first bytes in hexadecimal.

    Parameters
    ----------
    content : bytes

    Returns
    -------
    str
    """
    more = " ..." if len(content) > _SHOWN_BYTES else ""
    return content[:_SHOWN_BYTES].hex(" ") + more
