"""How a batch's chunks go through an engine's lanes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import morphogen as mg
from pictures.svg import (
    FAINT,
    INK,
    LARGE,
    LINE,
    MUTED,
    PAPER,
    PARTY,
    PARTY_FAINT,
    SMALL,
    Drawing,
)

NAME = "gpu-lanes"
QUERIES = 9
LANES = 2  # unless a caller asks for another number

# Lengths of the picture's own: nobody measured them on a GPU.
LAUNCH, KERNEL, RETURN = 0.5, 3.0, 0.7
UNIT = 36.0


@dataclass(frozen=True, slots=True)
class Step:
    """What the host does: put a chunk into its lane ("launch"), or wait for one ("wait")."""

    what: str
    chunk: int


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when something is done, of a chunk."""

    chunk: int
    begin: float
    end: float


def host_steps(chunks: int, lanes: int) -> list[Step]:
    """The host's launches and waits for a batch, in order, as engine/cuda.pyx makes them.

    A lane's last chunk is waited for before the lane takes the next.
    """
    steps: list[Step] = []
    in_lane: dict[int, int] = {}

    def wait(lane: int) -> None:
        if lane in in_lane:
            steps.append(Step("wait", in_lane.pop(lane)))

    for chunk in range(chunks):
        wait(chunk % lanes)
        steps.append(Step("launch", chunk))
        in_lane[chunk % lanes] = chunk
    for chunk in range(chunks, chunks + lanes):
        wait(chunk % lanes)
    return steps


def timeline(chunks: int, lanes: int) -> tuple[list[tuple[Step, Span]], list[Span]]:
    """When the host does what, and when the device runs which chunk: one at a time, in order."""
    now = idle = 0.0
    host: list[tuple[Step, Span]] = []
    device: list[Span] = []
    for step in host_steps(chunks, lanes):
        begin = now
        if step.what == "launch":
            now += LAUNCH
            start = max(now, idle)
            idle = start + KERNEL
            device.append(Span(step.chunk, start, idle))
        else:
            now = max(now, device[step.chunk].end) + RETURN
        host.append((step, Span(step.chunk, begin, now)))
    return host, device


def draw() -> str:
    """Draw the same batch through one lane and through two."""
    sizes = [stop - start for start, stop in mg.planner.micro_batch_ranges(QUERIES)]
    chunks = len(sizes)
    out = Drawing(890, 470, f"{chunks} chunks through one lane, and through {LANES}")
    words = f"{QUERIES} queries: {chunks} chunks of " + ", ".join(map(str, sizes))
    out.text(20, 34, words, size=LARGE, bold=True)
    out.text(
        20,
        56,
        "The order is the engine's. The lengths are not measured: they show who waits for whom.",
        size=SMALL,
        fill=MUTED,
    )
    top = 84.0
    for lanes in (1, LANES):
        host, device = timeline(chunks, lanes)
        out.text(
            20, top + 12, "one lane" if lanes == 1 else f"{lanes} lanes (the default)", bold=True
        )
        left = 100.0
        y = top + 26
        out.text(20, y + 19, "host", size=SMALL)
        for step, span in host:
            x, width = left + UNIT * span.begin, UNIT * (span.end - span.begin)
            if step.what == "launch":
                out.rect(x, y, width, 28, fill=INK, stroke=PAPER)
            else:
                out.rect(x, y, width, 28, fill=FAINT)
                out.text(x + width / 2, y + 19, f"wait {span.chunk}", size=SMALL, anchor="middle")
        for lane in range(lanes):
            y += 36
            out.text(20, y + 19, f"lane {lane}", size=SMALL)
            out.line([(left, y + 28), (left + UNIT * host[-1][1].end, y + 28)], stroke=LINE)
            for span in device[lane::lanes]:
                x, width = left + UNIT * span.begin, UNIT * (span.end - span.begin)
                out.rect(x, y, width, 28, fill=PARTY_FAINT[lane], stroke=PARTY[lane])
                words = f"chunk {span.chunk}"
                out.text(x + width / 2, y + 19, words, size=SMALL, anchor="middle")
        gaps = sum(after.begin - before.end for before, after in pairwise(device))
        y += 46
        idle = (
            "the device waits for the host between two chunks"
            if gaps
            else ("the next chunk is queued while one runs: the device never waits")
        )
        out.text(left, y + 8, idle, size=SMALL)
        top = y + 44
    out.rect(20, 436, 18, 16, fill=INK, stroke=INK)
    out.text(44, 449, "launch", size=SMALL)
    out.rect(110, 436, 18, 16, fill=FAINT)
    out.text(134, 449, "wait for a chunk, and copy its answer", size=SMALL)
    return out.svg()
