"""How a launch cuts a table into blocks, and what a block does with its part."""

from __future__ import annotations

from morphogen.engine.cuda.grid import plan_grid
from pictures.sources import block_windows, constant
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

NAME = "gpu-blocks"
MULTIPROCESSORS = 132  # of an H100 or an H200; each runs one block of 1,024 threads
TABLES = ((65536, 4096), (65536, 16384), (1000, 4096))  # pages, bytes
WARP = 32
GROUP = 32  # pages whose selection bits are one word
LOADS = 4  # of a step


def draw() -> str:
    """Draw the grids of three tables, and a block of the first: its rows, and a step of one."""
    vector = constant("page_jobs.h", "kVectorBytes")
    threads = constant("page_jobs.h", "kBlockThreads")
    most = constant("page_jobs.h", "kTileVectors")
    leaf = 1 << constant("dpf.h", "kLeafLogBits")
    window = block_windows() * leaf

    out = Drawing(930, 690, "How a launch cuts a table into blocks")
    out.text(20, 34, f"A launch on {MULTIPROCESSORS} multiprocessors", size=LARGE, bold=True)
    for at, (pages, size) in enumerate(TABLES):
        grid = plan_grid(pages, size // vector, most, MULTIPROCESSORS)
        x, y, width, height = 40.0 + 290 * at, 96.0, 250.0, 190.0
        out.text(x, 64, f"{pages:,} pages of {size // 1024} KiB", bold=True)
        out.text(
            x,
            84,
            f"{grid.tiles} {'tile' if grid.tiles == 1 else 'tiles'} x {grid.runs} runs"
            f" = {grid.blocks} blocks",
            size=SMALL,
            fill=MUTED,
        )
        tile, run = width / grid.tiles, height / grid.runs
        out.rect(x, y, width, height, fill=PAPER)
        for number in range(1, grid.tiles):
            out.line([(x + tile * number, y), (x + tile * number, y + height)])
        for number in range(1, grid.runs):
            out.line([(x, y + run * number), (x + width, y + run * number)], width=0.5)
        chosen = 5 % grid.blocks
        out.rect(
            x + tile * (chosen % grid.tiles),
            y + run * (chosen // grid.tiles),
            tile,
            max(run, 2),
            fill=ACCENT_FAINT,
            stroke=ACCENT,
        )
        longest = -(-pages // grid.runs)
        bytes_ = grid.tile_vectors * vector
        out.text(x, y + height + 20, f"block {chosen} (green): {longest} pages,", size=SMALL)
        out.text(x, y + height + 37, f"{bytes_ // 1024} KiB of each", size=SMALL)

    pages, size = TABLES[0]
    grid = plan_grid(pages, size // vector, most, MULTIPROCESSORS)
    run = -(-pages // grid.runs)
    warps = threads // WARP
    across = grid.tile_vectors // WARP
    rows = warps // across
    top = 372.0
    out.text(20, top, "A block of the first table", size=LARGE, bold=True)
    out.lines(
        20,
        top + 24,
        [
            f"{threads:,} threads are {warps} warps, {across} to a page: {rows} rows of warps.",
            f"A window is at most {window:,} pages ({window // leaf} leaves of {leaf}); this run",
            f"of {run} pages is one window. Each row takes a contiguous part of it.",
        ],
    )
    height = 42.0
    for row in range(rows):
        first, last = run * row // rows, run * (row + 1) // rows
        y = top + 84 + (height + 6) * row
        out.text(20, y + 17, f"row {row}", size=SMALL, bold=True)
        out.text(20, y + 33, f"pages {first}-{last - 1}", size=SMALL, fill=MUTED)
        for warp in range(across):
            x = 124 + 37.0 * warp
            colour = row % 2
            out.rect(x, y, 37, height, fill=PARTY_FAINT[colour], stroke=PARTY[colour])
            out.text(x + 18.5, y + 26, f"w{row * across + warp}", size=SMALL, anchor="middle")
    out.text(
        124,
        top + 84 + (height + 6) * rows + 14,
        f"each warp: {WARP} x {vector} = {WARP * vector} bytes of a page",
        size=SMALL,
        fill=MUTED,
    )

    x, y = 490.0, top
    steps = GROUP // LOADS
    out.text(x, y, "A step of a row", size=LARGE, bold=True)
    out.lines(
        x,
        y + 24,
        [
            f"{LOADS} loads of {vector} bytes a thread, of pages {steps} apart: their bits are the",
            "top bits of a word's four bytes. PRMT makes a mask of each; then",
            f"sum ^= page & mask, 4 LOP3 a key. {steps} steps take {GROUP} pages.",
        ],
    )
    for page in range(GROUP):
        column, line = page % steps, page // steps
        last = steps - 1
        fill = ACCENT_FAINT if column == last else FAINT if column == last - 1 else PAPER
        left, upper = x + 46 * column, y + 84 + 48 * line
        out.rect(left, upper, 46, 42, fill=fill, stroke=ACCENT if column == last else LINE)
        out.text(left + 23, upper + 26, str(page), anchor="middle", size=SMALL)
    out.text(
        x,
        y + 84 + 48 * LOADS + 14,
        "pages of a group of 32: green in the first step, grey in the second",
        size=SMALL,
        fill=MUTED,
    )
    return out.svg()
