"""How the CPU's scan goes through pages, and where its sums lie."""

from __future__ import annotations

from pictures.sources import constant
from pictures.svg import (
    ACCENT,
    ACCENT_FAINT,
    FAINT,
    LARGE,
    LINE,
    MUTED,
    PAPER,
    PARTY,
    PARTY_FAINT,
    SMALL,
    Drawing,
)

NAME = "cpu-columns"
PAGE_BYTES = 4096
KEYS = 24  # eight queries of three keys
SHOWN = 9  # columns that the picture has room for
TILE_OCTETS = 2  # of 9 to 48 keys with GFNI: host_kernels.cpp


def draw() -> str:
    """Draw a tile of pages with a column of it, and the sums of that column."""
    line = constant("page_scan.h", "kCacheLine")
    octet = constant("selection.h", "kOctet")
    columns = PAGE_BYTES // line
    rows = TILE_OCTETS * octet
    out = Drawing(880, 460, "A tile of pages, its columns, and the sums of each column")
    out.text(20, 34, "Pages are read in tiles, a column at a time", size=LARGE, bold=True)
    out.lines(
        20,
        58,
        [
            f"{PAGE_BYTES:,}-byte pages have {columns} columns of {line} bytes: a cache line each.",
            f"Of 9 to 48 keys with GFNI a tile is {rows} pages high.",
        ],
    )
    left, top, width, height = 84.0, 116.0, 34.0, 16.0
    chosen = 3
    for column in range(SHOWN):
        x = left + width * column
        words = (
            str(column)
            if column < SHOWN - 2
            else "..."
            if column == SHOWN - 2
            else str(columns - 1)
        )
        out.text(x + width / 2, top - 8, words, size=SMALL, anchor="middle", fill=MUTED)
        for row in range(rows):
            fill = ACCENT_FAINT if column == chosen else FAINT if row % 2 else PAPER
            out.rect(x, top + height * row, width, height, fill=fill)
    for row in (0, rows // 2 - 1, rows // 2, rows - 1):
        out.text(74, top + height * row + 12, f"page {row}", size=SMALL, anchor="end", fill=MUTED)
    out.arrow((left, top + height * rows + 18), (left + width * SHOWN, top + height * rows + 18))
    out.lines(
        left,
        top + height * rows + 40,
        [
            f"column after column: {rows} streams of reads, which",
            "the hardware's prefetchers follow (read order rows)",
        ],
    )
    x0 = 470.0
    out.text(x0, 34, f"The sums of {KEYS} keys, by column", size=LARGE, bold=True)
    out.lines(
        x0,
        58,
        [
            f"A column's sums are {KEYS} x {line} = {KEYS * line:,} bytes that lie together,",
            "so they stay in the first-level cache while its lines are added.",
        ],
    )
    cell = 15.5
    for row, column in enumerate((2, 3, 4)):
        y = top + 44 * row
        out.text(x0 - 8, y + 19, f"{column}", size=SMALL, anchor="end", fill=MUTED)
        for key in range(KEYS):
            fill = ACCENT_FAINT if column == chosen else PAPER
            out.rect(x0 + cell * key, y, cell, 28, fill=fill)
    out.text(x0 - 24, top - 8, "column", size=SMALL, anchor="end", fill=MUTED)
    for key in (0, 5, 11, 17, 23):
        out.text(
            x0 + cell * (key + 0.5),
            top - 8,
            f"key {key}" if key == 0 else str(key),
            size=SMALL,
            anchor="middle",
            fill=MUTED,
        )
    out.arrow((left + width * (chosen + 1), top + 60), (x0 - 26, top + 60), stroke=ACCENT)
    y = 300.0
    out.text(x0, y, "Not so: a page after the other", bold=True)
    for row in range(3):
        out.text(x0 - 8, y + 29 + 26 * row, f"key {row}", size=SMALL, anchor="end", fill=MUTED)
        for column in range(12):
            fill = PARTY_FAINT[1] if column == chosen else PAPER
            stroke = PARTY[1] if column == chosen else LINE
            out.rect(x0 + 31 * column, y + 14 + 26 * row, 31, 20, fill=fill, stroke=stroke)
    out.lines(
        x0,
        y + 114,
        [
            f"A column's sums would lie {PAGE_BYTES:,} bytes apart, and share one set",
            "of the first-level cache with each other and with the pages.",
        ],
    )
    return out.svg()
