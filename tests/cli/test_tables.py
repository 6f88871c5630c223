"""Tables on terminals of any width: no word and no figure is cut, and no line is too long."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich import box
from rich.console import Console
from rich.table import Table

import morphogen.bench as bench
from bench_runs import config
from morphogen.bench import BenchmarkResult
from morphogen.bench.phases import PhaseRow
from morphogen.cli.show_bench import show_benchmark
from morphogen.cli.tables import print_table

WIDTHS = (40, 60, 80, 100, 200)


def console(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, markup=False, highlight=False)


def printed(on: Console) -> str:
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


def words(text: str) -> list[str]:
    return re.findall(r"[^\s─]+", text)


@pytest.fixture(scope="module")
def result() -> BenchmarkResult:
    """A run with every table, and figures of many digits."""
    settings = config(batch_sizes=(1, 8), strategies=("all",), concurrency=(1, 4))
    run = bench.run_benchmark(settings)
    phases = PhaseRow(8, (2, 2, 2, 2), *(1_234_567.8 + number for number in range(6)))
    return replace(run, phases=(phases,))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_benchmark_is_shown_whole(result: BenchmarkResult, width: int) -> None:
    wide, narrow = console(500), console(width)
    show_benchmark(result, wide)
    show_benchmark(result, narrow)
    shown = printed(narrow)
    assert max(map(len, shown.splitlines()[3:])) <= width  # the first name files, and are not cut
    assert "…" not in shown
    cells = {word for word in words(printed(wide)) if re.search(r"\d|chunks|single", word)}
    missing = {cell for cell in cells if cell.rstrip(",;:") not in shown}
    assert not missing


def table() -> Table:
    rows = Table(title="Times", box=box.SIMPLE_HEAD)
    for heading in ("name", "queries\n/ s", "speed-up"):
        rows.add_column(heading, justify="right")
    rows.add_row("chunks-2-lanes-1-graph *", "1,234,567", "12.34 [11.11-13.13]")
    rows.add_section()
    rows.add_row("", "7", "1.00 [0.99-1.01]", style="red")
    return rows


def test_a_table_that_fits_stays_as_it_is() -> None:
    alone, on = console(80), console(80)
    alone.print(table())
    print_table(table(), on)
    assert printed(on) == printed(alone)


def test_cells_are_broken_between_words() -> None:
    on = console(58)
    print_table(table(), on)
    lines = [line.split() for line in printed(on).splitlines()]
    assert ["chunks-2-lanes-1-graph", "*", "1,234,567", "12.34"] in lines


def test_columns_move_together_before_the_table_is_given_up() -> None:
    on = console(50)
    print_table(table(), on)
    assert any(line.startswith("chunks-2-lanes-1-graph") for line in printed(on).splitlines())


@pytest.mark.parametrize("width", range(20, 70))
def test_no_word_is_cut_at_any_width(width: int) -> None:
    on = console(width)
    print_table(table(), on)
    shown = printed(on)
    assert max(map(len, shown.splitlines())) <= width
    for cell in ("chunks-2-lanes-1-graph", "1,234,567", "12.34", "[11.11-13.13]", "[0.99-1.01]"):
        assert cell in shown if len(cell) <= width else cell[:width] in shown


def test_a_row_that_is_too_wide_becomes_a_paragraph() -> None:
    on = console(30)
    print_table(table(), on)
    assert printed(on).splitlines() == [
        "Times",
        "",
        "name chunks-2-lanes-1-graph *,",
        "queries / s 1,234,567, ",
        "speed-up 12.34 [11.11-13.13]",
        "",
        "queries / s 7, speed-up 1.00 ",
        "[0.99-1.01]",
        "",
    ]
