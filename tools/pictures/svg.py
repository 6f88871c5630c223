"""A writer of SVG for the pictures: the same calls give the same bytes, on any machine.

Plotting libraries write other bytes with every release of theirs and of a font's; here a test can
compare what is committed with what the code draws now.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]

INK, MUTED, LINE, PAPER = "#1f2933", "#52606d", "#9aa5b1", "#ffffff"
FAINT = "#eef1f4"  # the inside of boxes
PARTY = ("#1d5fa8", "#b4540a")  # party 0 and party 1
PARTY_FAINT = ("#d6e6f7", "#fbe3cd")
ACCENT, ACCENT_FAINT = "#0b7a4b", "#cdeedd"  # the page that is read, and the way to it
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
MONO = "Menlo, Consolas, 'Liberation Mono', monospace"
SMALL, NORMAL, LARGE = 12, 14, 17


def number(value: float) -> str:
    """A coordinate, without digits that nobody can see."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


class Drawing:
    """A picture of so many units, on white, which is legible on a dark page too.

    Parameters
    ----------
    width, height : float
    title : str
        What the picture shows, for those who cannot see it.
    """

    def __init__(self, width: float, height: float, title: str) -> None:
        size = f"{number(width)} {number(height)}"
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
            f'width="{number(width)}" height="{number(height)}" role="img" '
            f'font-family="{FONT}" font-size="{NORMAL}" fill="{INK}">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{number(width)}" height="{number(height)}" rx="8" fill="{PAPER}"/>',
        ]

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = NORMAL,
        anchor: str = "start",
        fill: str = INK,
        bold: bool = False,
        mono: bool = False,
    ) -> None:
        """Words whose base line begins, has its middle or ends at a point."""
        more = "" if anchor == "start" else f' text-anchor="{anchor}"'
        more += "" if fill == INK else f' fill="{fill}"'
        more += "" if size == NORMAL else f' font-size="{number(size)}"'
        more += ' font-weight="bold"' if bold else ""
        more += f" font-family={quoteattr(MONO)}" if mono else ""
        self._parts.append(f'<text x="{number(x)}" y="{number(y)}"{more}>{escape(text)}</text>')

    def lines(self, x: float, y: float, lines: Sequence[str], *, size: float = SMALL) -> None:
        """Lines of words below each other, in the muted colour."""
        for line in lines:
            self.text(x, y, line, size=size, fill=MUTED)
            y += size * 1.4

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = FAINT,
        stroke: str = LINE,
        rx: float = 0,
        stroke_width: float = 1,
    ) -> None:
        """A box."""
        more = f' rx="{number(rx)}"' if rx else ""
        more += f' stroke-width="{number(stroke_width)}"' if stroke_width != 1 else ""
        self._parts.append(
            f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" '
            f'height="{number(height)}" fill="{fill}" stroke="{stroke}"{more}/>'
        )

    def circle(self, x: float, y: float, radius: float, *, fill: str, stroke: str = LINE) -> None:
        """A disc."""
        self._parts.append(
            f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" fill="{fill}" '
            f'stroke="{stroke}"/>'
        )

    def line(
        self, points: Sequence[Point], *, stroke: str = LINE, width: float = 1, dash: str = ""
    ) -> None:
        """A line along points."""
        more = f' stroke-dasharray="{dash}"' if dash else ""
        path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{stroke}" '
            f'stroke-width="{number(width)}"{more}/>'
        )

    def arrow(self, start: Point, end: Point, *, stroke: str = MUTED, width: float = 1.5) -> None:
        """A straight line with a head at its end; level, upright or slanted."""
        (x0, y0), (x1, y1) = start, end
        length = float(np.hypot(x1 - x0, y1 - y0))
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        head, half = 9, 4
        back = (x1 - head * dx, y1 - head * dy)
        self.line([start, back], stroke=stroke, width=width)
        corners = [
            end,
            (back[0] - half * dy, back[1] + half * dx),
            (back[0] + half * dy, back[1] - half * dx),
        ]
        path = " ".join(f"{number(x)},{number(y)}" for x, y in corners)
        self._parts.append(f'<polygon points="{path}" fill="{stroke}"/>')

    def bits(
        self, x: float, y: float, rows: npt.NDArray[np.bool_], unit: float, *, fill: str
    ) -> None:
        """A matrix of bits, the ones as squares of a unit, in a frame."""
        height, width = rows.shape
        self.rect(x, y, width * unit, height * unit, fill=PAPER)
        path = []
        for row, bits in enumerate(rows.tolist()):
            at = 0
            while at < width:
                end = at
                while end < width and bits[end]:
                    end += 1
                if end > at:
                    path.append(f"M{at} {row}h{end - at}v1h{at - end}z")
                at = end + 1
        self._parts.append(
            f'<path transform="translate({number(x)} {number(y)}) scale({number(unit)})" '
            f'fill="{fill}" d="{"".join(path)}"/>'
        )

    def svg(self) -> str:
        """The picture as the text of a file."""
        return "\n".join([*self._parts, "</svg>", ""])
