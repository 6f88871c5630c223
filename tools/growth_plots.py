"""Plots of how cost grows: for each section a time panel and a panel of ratios to the pure read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from growth_points import Point

# Okabe and Ito's, which colour-blind readers can tell apart.
_COLOURS = ("#000000", "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00")
_STYLES = ("-", "--", ":")
_FEW = 9  # as many values as an axis can name
_DECADE = 12  # a scale of not much more than one
_X_LABELS = {
    "pages": "pages in the table",
    "threads": "threads",
    "batch": "queries of 3 keys in the batch",
    "page_size": "bytes in a page",
}
_PANELS = {"time": "time of a call, ms", "ratio": "times as long as a pure read"}


def plot_name(section: str) -> str:
    """The file's name."""
    return f"growth_{section}.svg"


def series(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each line, from left to right, by what the line is labelled with."""
    found: dict[str, list[Point]] = {}
    sizes = {at.page_size for at in points if at.section != "page_size"}
    for at in sorted(points, key=lambda at: (at.queries, at.page_size, at.x)):
        if at.section == "batch":
            # One batch a point; the pure read has no place on the axis of queries.
            if not at.queries:
                continue
            label = "batch"
        elif at.queries:
            label = f"{at.queries} {'query' if at.queries == 1 else 'queries'}"
        else:
            label = "pure read"
        if len(sizes) > 1:
            label += f", {at.page_size:,} B"
        found.setdefault(label, []).append(at)
    return found


def describe_table(points: Sequence[Point]) -> str:
    """What all points of a section have in common, in words."""
    parts = []
    if len({at.page_size for at in points}) == 1:
        parts.append(f"{points[0].page_size:,}-byte pages")
    totals = {at.pages * at.page_size for at in points}
    if len(totals) == 1:
        parts.append(f"{totals.pop() / 2**20:,.4g} MiB")
    if len({at.threads for at in points}) == 1:
        parts.append(f"threads: {points[0].threads}")
    parts.append(f"medians and quartiles of {points[0].rounds} rounds")
    return ", ".join(parts)


def draw(points: Sequence[Point]) -> Figure:
    """The plot of one section's points.

    Parameters
    ----------
    points : sequence of Point
        At least one, all of the same section.

    Returns
    -------
    matplotlib.figure.Figure
        Each line's gid is its panel and its label: "time: pure read".
    """
    section = points[0].section
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    lines = series(points)
    queries = sorted({at.queries for at in points})
    sizes = sorted({at.page_size for at in points})
    xs = sorted({at.x for at in points if at.x})
    for axes, (panel, y_label) in zip(figure.subplots(1, 2), _PANELS.items(), strict=True):
        for label, line in lines.items():
            if section == "batch":
                colour, style = _COLOURS[1], _STYLES[0]
            else:
                colour = _COLOURS[queries.index(line[0].queries) % len(_COLOURS)]
                style = _STYLES[0 if section == "page_size" else sizes.index(line[0].page_size) % 3]
            spreads = [at.ms if panel == "time" else at.ratio for at in line]
            x = [at.x for at in line]
            axes.plot(
                *(x, [spread.median for spread in spreads]),
                label=label,
                color=colour,
                linestyle=style,
                marker="o" if len(xs) <= _FEW else "",  # markers make most of a large file
                markersize=3,
                linewidth=1.4,
                gid=f"{panel}: {label}",
            )
            low, high = ([getattr(s, end) for s in spreads] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        _label(axes, _X_LABELS[section], y_label, xs)
    if section == "batch":
        for read in (at for at in points if not at.queries):
            for axes, value in zip(figure.axes, (read.ms.median, read.ratio.median), strict=True):
                axes.axhline(value, color=_COLOURS[0], linewidth=1.2, label="pure read")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=5, fontsize="small", frameon=False
    )
    figure.suptitle(describe_table(points), fontsize="medium")
    return figure


def _label(axes: Axes, x_label: str, y_label: str, xs: Sequence[int]) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    if len(xs) <= _FEW:
        axes.set_xticks(xs)
    else:
        axes.xaxis.set_major_locator(LogLocator(base=2, numticks=_FEW))
    axes.tick_params(labelsize="small")
    axes.xaxis.set_major_formatter(FuncFormatter(_describe_power))
    low, high = axes.get_ylim()
    fine = high < _DECADE * low
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if fine else (1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.grid(color="#d0d0d0", linewidth=0.5)


def _describe_power(value: float, _: object) -> str:
    """A number of the x axis in short: 512, 64Ki, 4Mi."""
    for unit, name in ((2**20, "Mi"), (2**10, "Ki")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def save_plots(points: Sequence[Point], folder: Path) -> list[Path]:
    """Draw every section that has points.

    Parameters
    ----------
    points : sequence of Point
    folder : Path

    Returns
    -------
    list of Path
        The SVG files: the same bytes for the same points.
    """
    files = []
    for section in dict.fromkeys(at.section for at in points):
        # Text stays text, in the reader's font; nothing in a file depends on the day or on chance.
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "morphogen"}):
            figure = draw([at for at in points if at.section == section])
            file = folder / plot_name(section)
            metadata = {"Date": None, "Creator": "tools/growth.py"}
            figure.savefig(file, format="svg", metadata=metadata)
        # Matplotlib ends some lines in blanks.
        lines = (line.rstrip() for line in file.read_text(encoding="utf-8").splitlines())
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        files.append(file)
    return files
