"""Tables whose words and figures are whole, however narrow the terminal is. Imports rich."""

from __future__ import annotations

import sys

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def print_table(table: Table, console: Console) -> None:
    """Print a table, whose cells are broken between words only.

    Where even that is too wide, its columns move together, and then each row becomes a paragraph,
    with the heading before each cell.

    Parameters
    ----------
    table : rich.table.Table
        Its headings and cells are text.
    console : rich.console.Console
    """
    if _fit(table, console):
        console.print(table)
        return
    table.padding = 0
    table.show_edge = False
    if _fit(table, console):
        console.print(table)
        console.print()
    else:
        _print_paragraphs(table, console)


def _fit(table: Table, console: Console) -> bool:
    """Break as many columns between words as it takes for the table to fit, if it can."""
    savings = []
    for column in table.columns:
        column.width = None
        texts = [str(text) for text in (column.header, *column.cells)]
        words = max((cell_len(word) for text in texts for word in text.split()), default=0)
        lines = max((cell_len(line) for text in texts for line in text.splitlines()), default=0)
        savings.append((lines - words, words, column))
    for _, words, column in sorted(savings, key=lambda saving: saving[0], reverse=True):
        if _fits(table, console):
            break
        column.width = words
    return _fits(table, console)


def _fits(table: Table, console: Console) -> bool:
    # On a terminal without end, since a measure is cut to the terminal's width, too.
    unbounded = console.options.update_width(sys.maxsize)
    return Measurement.get(console, unbounded, table).maximum <= console.width


def _print_paragraphs(table: Table, console: Console) -> None:
    if table.title:
        console.print(table.title)
        console.print()
    headings = [" ".join(str(column.header).split()) for column in table.columns]
    cells = zip(*(column.cells for column in table.columns), strict=True)
    for row, texts in zip(table.rows, cells, strict=True):
        named = zip(headings, map(str, texts), strict=True)
        line = ", ".join(f"{name} {text}".strip() for name, text in named if text)
        console.print(line, style=row.style or "")
        if row.end_section:
            console.print()
    console.print()
