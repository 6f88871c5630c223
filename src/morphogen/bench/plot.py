"""The result of a benchmark as a picture. Needs matplotlib, which is loaded only to draw."""

from __future__ import annotations

import errno
import importlib.util
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from morphogen.bench.concurrency import BATCHER, DIRECT
from morphogen.bench.describe import describe_size
from morphogen.bench.result import BenchmarkResult
from morphogen.bench.statistics import Spread
from morphogen.bench.strategies import SINGLE
from morphogen.checks import missing_extra, names_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")
_PANEL_INCHES = (6.4, 4.4)
_DOTS_PER_INCH = 150


def check_plot(path: Path) -> None:
    """Refuse a picture that cannot be drawn, before anything is measured.

    Parameters
    ----------
    path : Path
        The file of the picture.

    Raises
    ------
    ValueError
        If its suffix is neither .png nor .svg.
    OSError
        If there is no such folder, the path is one, or neither it nor the file may be written to.
    ModuleNotFoundError
        If matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a plot must be a .png or .svg file, not {path.name!r}")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    check_extra()


def check_extra() -> None:
    """Refuse to draw without matplotlib.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise missing_extra("matplotlib", "plot")


def draw_benchmark(result: BenchmarkResult, path: Path) -> None:
    """Draw a run: times, speed-ups and ratios to a pure read, by the size of the batch.

    Parameters
    ----------
    result : BenchmarkResult
    path : Path
        A .png or .svg file, which is written anew.

    Raises
    ------
    ModuleNotFoundError, OSError, ValueError
        As `check_plot` does, or if the file cannot be written.
    """
    check_plot(path)
    with names_file(path):
        path.write_bytes(_draw(result, path.suffix.lower().removeprefix(".")))


def plot_svg(result: BenchmarkResult) -> bytes:
    """Draw the same as the content of a .svg file.

    Parameters
    ----------
    result : BenchmarkResult

    Returns
    -------
    bytes
    """
    return _draw(result, "svg")


def _draw(result: BenchmarkResult, form: str) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels: list[Callable[[BenchmarkResult, Axes], None]] = [_draw_times, _draw_ratios]
    if result.strategies:
        panels.append(_draw_strategies)
    if result.concurrency:
        panels += [_draw_latencies, _draw_rates]
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    width, height = _PANEL_INCHES
    # Text stays text in a vector file, so that it can be read, searched and scaled; and the same
    # figures give the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "morphogen"}):
        # No pyplot, which keeps figures in global state and may open windows.
        figure = Figure(figsize=(columns * width, lines * height), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False)
        for axis, panel in zip(axes.flat, panels, strict=False):
            panel(result, axis)
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        figure.suptitle(_title(result), color="red" if result.failures else "black")
        # The date would make every file different.
        metadata = {"Date": None} if form == "svg" else {}
        picture = io.BytesIO()
        figure.savefig(picture, format=form, dpi=_DOTS_PER_INCH, metadata=metadata)
    return picture.getvalue()


def _title(result: BenchmarkResult) -> str:
    config = result.config
    size = describe_size(config.num_pages * config.page_size)
    device = f"{result.device}, {result.instruction_set}, threads: {result.threads}"
    if config.on_gpu:
        device = f"{result.device} ({result.device_name}), {result.instruction_set}"
    wrong = "\nwrong answers: these times are worth nothing" if result.failures else ""
    return (
        f"{config.num_pages:,} pages of {config.page_size:,} bytes ({size}), "
        f"{config.keys_per_query} keys a query; {device}; {config.iterations} rounds{wrong}"
    )


def _draw_times(result: BenchmarkResult, axis: Axes) -> None:
    for name, label in (
        ("sync", "synchronous loop"),
        ("single", "single-query loop"),
        ("batch", "batch"),
        ("read", "pure read"),
    ):
        spreads = [Spread.of(rounds.ms[name]) for rounds in result.rounds]
        _line(axis, [rounds.q for rounds in result.rounds], spreads, label)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    _label(axis, "Time of a batch: median, quartiles", *_batches(result), "ms")


def _draw_ratios(result: BenchmarkResult, axis: Axes) -> None:
    for over, under, label in (
        ("single", "batch", "single-query loop / batch: the speed-up"),
        ("batch", "read", "batch / pure read"),
    ):
        spreads = [Spread.of_ratio(rounds.ms[over], rounds.ms[under]) for rounds in result.rounds]
        _line(axis, [rounds.q for rounds in result.rounds], spreads, label)
    axis.axhline(1, color="gray", linewidth=0.8)
    axis.set_ylim(bottom=0)
    _label(axis, "Ratios within each round", *_batches(result), "ratio")


def _draw_strategies(result: BenchmarkResult, axis: Axes) -> None:
    for name in dict.fromkeys(row.name for row in result.strategies):
        if name == SINGLE:
            continue  # 1 by definition
        # A strategy that was not run, since another does the same, is as fast as that one.
        rows = [row for row in result.strategies if name == row.name or name in row.same_work]
        default = any(row.default for row in rows if row.name == name)
        label = f"{name}, the default" if default else name
        _line(axis, [row.q for row in rows], [row.vs_single for row in rows], label)
    axis.axhline(1, color="gray", linewidth=0.8, label="single-query loop")
    axis.set_ylim(bottom=0)
    _label(axis, "Strategies", *_batches(result), "speed-up over the single-query loop")


def _draw_latencies(result: BenchmarkResult, axis: Axes) -> None:
    for way in (DIRECT, BATCHER):
        rows = [row for row in result.concurrency if row.way == way]
        callers = [row.callers for row in rows]
        (line,) = axis.plot(callers, [row.p50_ms for row in rows], "o-", label=f"{way}, median")
        tails = [(row.callers, row.p99_ms) for row in rows if row.p99_ms is not None]
        if tails:
            at, values = zip(*tails, strict=True)
            color = line.get_color()
            axis.plot(at, values, "^--", color=color, label=f"{way}, 99th percentile")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    _label(axis, "Latency of concurrent callers", *_callers(result), "ms")


def _draw_rates(result: BenchmarkResult, axis: Axes) -> None:
    for way in (DIRECT, BATCHER):
        rows = [row for row in result.concurrency if row.way == way]
        _line(axis, [row.callers for row in rows], [row.qps for row in rows], way)
    axis.set_ylim(bottom=0)
    _label(axis, "Throughput of concurrent callers", *_callers(result), "queries / s")


def _batches(result: BenchmarkResult) -> tuple[str, list[int]]:
    return "queries in the batch", [row.q for row in result.rows]


def _callers(result: BenchmarkResult) -> tuple[str, list[int]]:
    return "callers at the same time", sorted({row.callers for row in result.concurrency})


def _line(axis: Axes, at: Sequence[int], spreads: Sequence[Spread], label: str) -> None:
    middle = [spread.median for spread in spreads]
    below = [spread.median - spread.low for spread in spreads]
    above = [spread.high - spread.median for spread in spreads]
    axis.errorbar(at, middle, yerr=(below, above), marker="o", capsize=3, label=label)


def _label(axis: Axes, title: str, across: str, ticks: Sequence[int], up: str) -> None:
    from matplotlib.ticker import NullLocator

    axis.set_title(title)
    axis.set_xlabel(across)
    axis.set_ylabel(up)
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
