"""What the page kernels' loops execute and what memory brings: counted, not measured."""

from __future__ import annotations

from dataclasses import dataclass

from pictures.sources import counted_loops
from pictures.svg import ACCENT, INK, LARGE, LINE, MUTED, PARTY, SMALL, Drawing

NAME = "gpu-roofline"

# An H200, by its data sheet and others' measurements: docs/performance.md.
BYTES_PER_SECOND, CLOCK, MULTIPROCESSORS = 4.3e12, 1.7e9, 132
LOAD_BYTES = 512  # of a warp: 32 threads of 16 bytes
# A multiprocessor starts 4 instructions of warps a clock, of which 2 on the pipe that does logic,
# shifts, PRMT, integer additions and comparisons.
ALL_RATE, PIPE_RATE = 4, 2
SHIPPED, MASKS = "as shipped", "wide kernels: masks"

LEFT, TOP, WIDTH, HEIGHT = 84.0, 92.0, 690.0, 320.0
MOST_WORK, MOST_BYTES = 140.0, 28.0


def memory_rate() -> float:
    """Bytes that memory brings in a clock, for each multiprocessor."""
    return BYTES_PER_SECOND / MULTIPROCESSORS / CLOCK


@dataclass(frozen=True, slots=True)
class Loop:
    """A kernel's main loop.

    Attributes
    ----------
    keys : int
    masks : bool
        Whether it is the loop by masks that was tried, and dropped, for many keys.
    work : float
        Instructions of the slower pipe for a load of 16 bytes a thread.
    every : float
        All instructions for it.
    """

    keys: int
    masks: bool
    work: float
    every: float

    @property
    def clocks(self) -> float:
        """Clocks that a multiprocessor needs at least for a warp's load."""
        return max(self.work / PIPE_RATE, self.every / ALL_RATE)

    @property
    def rate(self) -> float:
        """Bytes a clock, as memory or the instructions allow."""
        return min(memory_rate(), LOAD_BYTES / self.clocks)


def loops() -> list[Loop]:
    """The loops that were counted."""
    return [
        Loop(keys, name == MASKS, work, every)
        for (name, keys), (work, every) in counted_loops().items()
        if name in (SHIPPED, MASKS)
    ]


def draw() -> str:
    """Draw memory's roof, the instructions' roof, and each kernel's loop below them."""
    roof = memory_rate()
    corner = PIPE_RATE * LOAD_BYTES / roof

    def at(work: float, rate: float) -> tuple[float, float]:
        return LEFT + WIDTH * work / MOST_WORK, TOP + HEIGHT * (1 - rate / MOST_BYTES)

    out = Drawing(
        820, 500, "Bytes a clock that memory brings, and that the kernels' loops can take"
    )
    out.text(20, 34, "Memory or instructions: which is the limit?", size=LARGE, bold=True)
    out.text(
        20,
        58,
        "Counted in the disassembly for sm_90, against an H200's data sheet. "
        "Not measured on a GPU.",
        size=SMALL,
        fill=MUTED,
    )
    for rate in range(0, int(MOST_BYTES) + 1, 4):
        x, y = at(0, rate)
        out.line([(x, y), (x + WIDTH, y)], stroke="#e4e7eb")
        out.text(x - 8, y + 4, str(rate), size=SMALL, anchor="end", fill=MUTED)
    for work in range(0, int(MOST_WORK) + 1, 20):
        x, y = at(work, 0)
        out.line([(x, y), (x, y + 5)])
        out.text(x, y + 20, str(work), size=SMALL, anchor="middle", fill=MUTED)
    out.text(20, 80, "bytes a clock and multiprocessor", size=SMALL)
    out.text(
        LEFT + WIDTH,
        TOP + HEIGHT + 44,
        "LOP3, PRMT, shifts and additions for a load of 16 bytes a thread",
        size=SMALL,
        anchor="end",
    )
    out.line([at(0, 0), at(MOST_WORK, 0)], stroke=INK)

    def by_instructions(begin: float, end: float) -> list[tuple[float, float]]:
        works = [begin + (end - begin) * i / 40 for i in range(41)]
        return [at(work, PIPE_RATE * LOAD_BYTES / work) for work in works]

    lowest = PIPE_RATE * LOAD_BYTES / MOST_BYTES
    out.line(by_instructions(lowest, corner), stroke=LINE, width=1.5, dash="5 4")
    out.line([at(0, roof), at(corner, roof)], stroke=PARTY[0], width=3)
    out.line(by_instructions(corner, MOST_WORK), stroke=PARTY[1], width=3)
    x, y = at(MOST_WORK, roof)
    words = f"memory: {roof:.1f} bytes a clock; {corner:.0f} instructions hide behind it"
    out.text(x, y - 22, words, anchor="end", fill=PARTY[0])
    x, y = at(92, 13)
    out.text(x, y, f"instructions: {PIPE_RATE} of a warp a clock", fill=PARTY[1])
    for loop in loops():
        x, y = at(loop.work, loop.rate)
        out.circle(x, y, 6, fill=PARTY[1] if loop.masks else ACCENT, stroke=INK)
        words = f"{loop.keys} {'key' if loop.keys == 1 else 'keys'}"
        if loop.masks:
            out.text(x + 12, y - 6, f"{words}, masks", size=SMALL)
            continue
        # Two of the loops lie close together: one label goes above the roof.
        above = loop.keys == 12
        out.line([(x, y - 6), (x, y - 24)] if above else [(x, y + 6), (x, y + 28)], stroke=LINE)
        y += -44 if above else 43
        out.text(x, y, words, size=SMALL, anchor="middle", bold=loop.keys == 6)
        out.text(x, y + 15, f"{loop.work:g}", size=SMALL, anchor="middle", fill=MUTED)
    out.text(
        20,
        488,
        "Green: as shipped. 6 keys are two queries of three, the most that share a launch unasked.",
        size=SMALL,
    )
    return out.svg()
