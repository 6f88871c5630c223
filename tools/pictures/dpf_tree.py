"""The tree of a pair of keys: where both parties are alike, where not, and what the leaves give."""

from __future__ import annotations

import numpy as np
import reference

import morphogen as mg
from pictures.svg import (
    ACCENT,
    ACCENT_FAINT,
    FAINT,
    INK,
    LARGE,
    LINE,
    MUTED,
    PARTY,
    SMALL,
    Drawing,
)

NAME = "dpf-tree"
PAGES, INDEX = 4096, 2748
ENTROPY = bytes(range(0x11, 0x41))  # of the worked example in docs/protocol.md
UNIT = 3  # of a selection bit
ROW_BITS = 32
LEFT, STEP = 50.0, 112.0


def draw() -> str:
    """Run Gen and EvalFull, walk both parties' trees, and draw nodes, leaves and their XOR."""
    keys = mg.dpf.gen(INDEX, PAGES, entropy=ENTROPY)
    depth = reference.tree_depth(reference.domain_bits(PAGES))
    leaves = 1 << depth
    bits = [
        np.unpackbits(mg.dpf.eval_full(key, PAGES), bitorder="little").astype(bool) for key in keys
    ]

    out = Drawing(940, 620, f"The tree of a pair of keys for page {INDEX} of {PAGES}")
    out.text(20, 34, f"A pair of keys for page {INDEX:,} of {PAGES:,}", size=LARGE, bold=True)

    def x_of(level: int, position: int) -> float:
        return LEFT + STEP * ((position + 0.5) * (leaves >> level) - 0.5) + ROW_BITS * UNIT / 2

    def y_of(level: int) -> float:
        return 82.0 + 74 * level

    target = INDEX // reference.LEAF_BITS
    for level in range(depth):
        for child in range(2 << level):
            on_path = target >> (depth - level - 1) == child
            ends = [
                (x_of(level, child // 2), y_of(level)),
                (x_of(level + 1, child), y_of(level + 1)),
            ]
            out.line(ends, stroke=ACCENT if on_path else LINE, width=3 if on_path else 1)
    for level in range(depth + 1):
        for position in range(1 << level):
            x, y = x_of(level, position), y_of(level)
            (seed0, bit0), (seed1, bit1) = (reference.node(key, level, position) for key in keys)
            alike = seed0 == seed1
            out.circle(x, y, 17, fill=FAINT if alike else ACCENT_FAINT, stroke=INK)
            out.text(x - 3, y + 5, str(bit0), anchor="end", fill=PARTY[0], bold=True, mono=True)
            out.text(x + 3, y + 5, str(bit1), fill=PARTY[1], bold=True, mono=True)
    out.circle(686, 62, 11, fill=ACCENT_FAINT, stroke=INK)
    out.text(704, 66, "other seeds, other control bits", size=SMALL)
    out.circle(686, 92, 11, fill=FAINT, stroke=INK)
    out.text(704, 96, "same seed, same control bit", size=SMALL)
    out.text(30, 66, "In a node: the control bits of", size=SMALL)
    out.text(30, 84, "party 0", size=SMALL, fill=PARTY[0], bold=True)
    out.text(82, 84, "and", size=SMALL)
    out.text(110, 84, "party 1", size=SMALL, fill=PARTY[1], bold=True)

    names = ("party 0", "party 1", "XOR of both")
    rows = (bits[0], bits[1], bits[0] ^ bits[1])
    colours = (PARTY[0], PARTY[1], ACCENT)
    for row, (name, all_bits, colour) in enumerate(zip(names, rows, colours, strict=True)):
        top = 368.0 + 78 * row
        out.text(LEFT, top - 7, f"selection bits of {name}" if row < 2 else name, size=SMALL)
        for leaf in range(leaves):
            block = all_bits[leaf * reference.LEAF_BITS :][: reference.LEAF_BITS]
            out.bits(LEFT + STEP * leaf, top, block.reshape(-1, ROW_BITS), UNIT, fill=colour)
    for leaf in range(leaves):
        x = x_of(depth, leaf)
        out.text(x, 340, f"leaf {leaf}", size=SMALL, anchor="middle", fill=MUTED)
    (ones,) = np.flatnonzero(rows[2])
    row_of, column = divmod(int(ones) % reference.LEAF_BITS, ROW_BITS)
    spot = (
        LEFT + STEP * (int(ones) // reference.LEAF_BITS) + (column + 0.5) * UNIT,
        368.0 + 156 + (row_of + 0.5) * UNIT,
    )
    out.circle(*spot, 6, fill="none", stroke=ACCENT)
    out.text(
        LEFT,
        600,
        f"{reference.LEAF_BITS} bits a leaf, one for each page, from left to right and down. "
        f"The XOR has a single one: page {int(ones):,} (in the ring).",
        size=SMALL,
    )
    return out.svg()
