"""One query: what the client sends, what each server does, and how two answers make a page."""

from __future__ import annotations

import numpy as np

import morphogen as mg
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

NAME = "one-query"
PAGES, INDEX = 12, 7
ENTROPY = bytes(range(100, 148))  # fixed, so that the picture is
CELL = 36.0


def draw() -> str:
    """Run a query of one key over twelve pages of one byte, and draw all that happened."""
    table = (np.arange(PAGES) * 37 + 90).astype(np.uint8).reshape(PAGES, 1)
    keys = mg.dpf.gen(INDEX, PAGES, entropy=ENTROPY)
    bits = [
        np.unpackbits(mg.dpf.eval_full(key, PAGES), count=PAGES, bitorder="little") for key in keys
    ]
    with mg.open_engine(mg.PageMatrix(table), "cpu", threads=1) as engine:
        answers = [engine.answer([mg.Query([key])]) for key in keys]
    page = int(mg.reconstruct(*answers)[0, 0, 0])
    answered = [int(answer.pages[0, 0, 0]) for answer in answers]

    out = Drawing(880, 470, f"One query: page {INDEX} of {PAGES}, read from two servers")
    out.rect(20, 60, 250, 350, rx=6)
    out.text(36, 88, "Client", size=LARGE, bold=True)
    out.text(36, 116, f"wants page {INDEX} of {PAGES}")
    out.text(36, 140, f"Gen({INDEX}, {PAGES}) makes two keys,")
    out.text(36, 159, f"{len(keys[0])} bytes each; either alone")
    out.text(36, 178, "looks random")
    out.text(36, 300, "Reconstruct:")
    out.text(36, 328, f"{answered[0]:02x}", mono=True, fill=PARTY[0], bold=True)
    out.text(64, 328, "XOR")
    out.text(104, 328, f"{answered[1]:02x}", mono=True, fill=PARTY[1], bold=True)
    out.text(134, 328, "=")
    out.text(152, 328, f"{page:02x}", mono=True, fill=ACCENT, bold=True)
    out.text(36, 352, f"which is page {INDEX}: the others are")
    out.text(36, 371, "in both answers or in neither,")
    out.text(36, 390, "and cancel")

    left = 402.0
    for party, (top, chosen) in enumerate(zip((60.0, 250.0), bits, strict=True)):
        colour = PARTY[party]
        out.rect(left - 20, top, 478, 160, fill=FAINT, rx=6)
        out.text(left, top + 28, f"Server {party}", size=LARGE, bold=True, fill=colour)
        out.text(left + 88, top + 28, "holds the whole table, expands its key to bits", size=SMALL)
        for index, selected in enumerate(chosen.tolist()):
            x = left + index * CELL
            out.text(x + CELL / 2, top + 54, str(index), size=SMALL, anchor="middle", fill=MUTED)
            fill = PARTY_FAINT[party] if selected else PAPER
            out.rect(x, top + 60, CELL, 28, fill=fill)
            out.text(x + CELL / 2, top + 79, f"{table[index, 0]:02x}", anchor="middle", mono=True)
            out.text(x + CELL / 2, top + 106, str(selected), anchor="middle", mono=True)
        out.text(left, top + 138, f"XOR of the {int(chosen.sum())} selected pages:")
        out.text(left + 216, top + 138, f"{answered[party]:02x}", mono=True, bold=True, fill=colour)
        out.text(left + 246, top + 138, "(one page goes back)", fill=MUTED)
        out.arrow((270, top + 60), (left - 22, top + 60), stroke=colour)
        out.text(326, top + 52, f"key {party}", anchor="middle", fill=colour)
        out.arrow((left - 22, top + 132), (272, top + 132), stroke=colour)
        out.text(326, top + 124, f"answer {party}", anchor="middle", fill=colour)

    differ = bits[0] ^ bits[1]
    out.text(left - 22, 446, "bits 0 XOR bits 1", anchor="end", fill=MUTED)
    for index, bit in enumerate(differ.tolist()):
        x = left + index * CELL
        out.rect(x, 426, CELL, 28, fill=ACCENT_FAINT if bit else PAPER)
        out.text(x + CELL / 2, 445, str(bit), anchor="middle", mono=True)
    out.text(20, 36, "One query of one key: the table is on both servers", size=LARGE, bold=True)
    return out.svg()
