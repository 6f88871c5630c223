"""The bucket method: pages sorted by which of the keys select them."""

from __future__ import annotations

import numpy as np

import morphogen as mg
from pictures.sources import constant
from pictures.svg import (
    ACCENT,
    ACCENT_FAINT,
    FAINT,
    LARGE,
    MUTED,
    PAPER,
    PARTY,
    PARTY_FAINT,
    SMALL,
    Drawing,
)

NAME = "cpu-buckets"
PAGES = 24
INDICES = (2, 11, 19)
CELL = 30.0


def draw() -> str:
    """Sort the pages of a small table by the bits of three real keys."""
    keys = [
        mg.dpf.gen(index, PAGES, entropy=bytes(range(16 * at, 16 * at + 48)))[0]
        for at, index in enumerate(INDICES)
    ]
    bits = [np.unpackbits(mg.dpf.eval_full(key, PAGES), bitorder="little")[:PAGES] for key in keys]
    patterns = np.array(bits).T @ (1 << np.arange(len(keys)))
    queue = constant("scan_buckets.h", "kQueuePages")

    out = Drawing(
        880, 560, f"Buckets: {PAGES} pages sorted by which of {len(keys)} keys select them"
    )
    out.text(20, 34, f"Buckets, {len(keys)} keys", size=LARGE, bold=True)
    left = 130.0
    for page in range(PAGES):
        x = left + CELL * page
        out.text(x + CELL / 2, 66, str(page), size=SMALL, anchor="middle", fill=MUTED)
        for key, row in enumerate(bits):
            fill = PARTY_FAINT[0] if row[page] else PAPER
            out.rect(x, 74 + 24 * key, CELL, 24, fill=fill)
            out.text(x + CELL / 2, 91 + 24 * key, str(row[page]), anchor="middle", mono=True)
        out.rect(x, 152, CELL, 26, fill=FAINT if patterns[page] == 0 else ACCENT_FAINT)
        out.text(x + CELL / 2, 170, str(patterns[page]), anchor="middle", mono=True)
    out.text(20, 66, "page", size=SMALL, fill=MUTED)
    for key in range(len(keys)):
        out.text(20, 91 + 24 * key, f"bits of key {key}", size=SMALL)
    out.text(20, 170, "pattern", size=SMALL)

    count = 1 << len(keys)
    for pattern in range(count):
        y = 210 + 34.0 * pattern
        members = np.flatnonzero(patterns == pattern).tolist()
        of = " ".join(str(key) for key in range(len(keys)) if pattern >> key & 1)
        out.text(
            20, y + 19, f"bucket {pattern}:" if pattern else "no bucket:", size=SMALL, bold=True
        )
        out.text(
            104,
            y + 19,
            f"{'key' if len(of) == 1 else 'keys'} {of}" if pattern else "no key",
            size=SMALL,
        )
        for at, page in enumerate(members):
            x = 180 + CELL * at
            out.rect(x, y, CELL, 26, fill=ACCENT_FAINT if pattern else FAINT)
            out.text(x + CELL / 2, y + 18, str(page), size=SMALL, anchor="middle")
        if pattern == 0:
            out.text(
                190 + CELL * len(members),
                y + 18,
                "not read, where pages are wide",
                size=SMALL,
                fill=MUTED,
            )
    x = 560.0
    out.lines(
        x,
        250,
        [
            "A page waits in its bucket's queue until there",
            f"are {queue}: one load and one store of the bucket's",
            f"sum for {queue} lines of pages, read side by side.",
            "",
            "Each page is added once, whatever the number",
            "of keys. In the end a key's answer is the XOR of",
            f"the {count // 2} buckets whose pattern has the key:",
        ],
    )
    for key in range(len(keys)):
        own = [pattern for pattern in range(count) if pattern >> key & 1]
        out.text(
            x, 376 + 24 * key, f"key {key} = " + " ^ ".join(map(str, own)), mono=True, fill=PARTY[0]
        )
    out.text(
        20,
        532,
        f"{int((patterns != 0).sum())} of {PAGES} pages are read here; "
        f"of many pages about {count - 1} of {count}.",
        size=SMALL,
    )
    out.line([(20, 194), (860, 194)], stroke=ACCENT)
    return out.svg()
