"""The picture of a benchmark: its lines, and the errors before anything is measured."""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

import morphogen.bench as bench
from bench_runs import SMALL, config
from morphogen.bench.plot import check_plot, draw_benchmark
from morphogen.cli import main

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib"
)
SVG = "{http://www.w3.org/2000/svg}"


def texts(path: Path) -> list[str]:
    """The words of an SVG file, as text."""
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    return ["".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")]


@needs_matplotlib
def test_a_vector_picture_has_its_words_as_text(tmp_path, capsys):
    path = tmp_path / "bench.svg"
    assert main([*SMALL, "--batch-sizes", "1,2,8", "--plot", str(path)]) == 0
    found = texts(path)
    for words in (
        "70 pages of 40 bytes (2.7 KiB), 3 keys a query; cpu, ",
        "Time of a batch: median, quartiles",
        "single-query loop / batch: the speed-up",
        "batch / pure read",
        "synchronous loop",
        "queries in the batch",
    ):
        assert any(text.startswith(words) for text in found), words
    assert {"1", "2", "8"} <= set(found), "the sizes of the batches are the ticks"
    assert "Strategies" not in found
    assert "Latency of concurrent callers" not in found
    assert "equal" in capsys.readouterr().out, "the rows are printed all the same"


@needs_matplotlib
def test_strategies_and_callers_are_drawn(tmp_path):
    path = tmp_path / "bench.svg"
    arguments = ["--strategies", "chunks-2,chunks-4", "--concurrency", "1,4", "--plot", str(path)]
    assert main([*SMALL, "--batch-sizes", "1,8", *arguments]) == 0
    found = texts(path)
    for words in (
        *("Strategies", "chunks-2", "chunks-4", "single-query loop"),
        *("Latency of concurrent callers", "direct, median", "batcher, median"),
        *("Throughput of concurrent callers", "queries / s", "callers at the same time"),
    ):
        assert words in found
    assert any(text.endswith(", the default") for text in found)


def line_of(handle: Any) -> Any:
    """The line of a legend's entry, without its error bars."""
    return handle.lines[0]


@needs_matplotlib
def test_the_lines_are_those_of_the_rows(tmp_path, monkeypatch):
    """The picture shows the measurements: the points of the speed-up, by the axes' own data."""
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig

    def keep_and_save(figure: Figure, *call: Any, **options: Any) -> None:
        drawn.append(figure)
        save(figure, *call, **options)

    monkeypatch.setattr(Figure, "savefig", keep_and_save)
    result = bench.run_benchmark(config(batch_sizes=(1, 2, 5), iterations=5))
    draw_benchmark(result, tmp_path / "bench.png")
    times, ratios = (axes for axes in drawn[0].axes if axes.axison)
    handles, labels = ratios.get_legend_handles_labels()
    lines = dict(zip(labels, map(line_of, handles), strict=True))
    assert list(lines["batch / pure read"].get_xdata()) == [1, 2, 5]
    assert list(lines["batch / pure read"].get_ydata()) == [
        row.batch_vs_read for row in result.rows
    ]
    handles, labels = times.get_legend_handles_labels()
    lines = dict(zip(labels, map(line_of, handles), strict=True))
    for label, name in (
        ("batch", "batch_ms_per_batch"),
        ("single-query loop", "single_ms_per_batch"),
        ("synchronous loop", "sync_ms_per_batch"),
        ("pure read", "read_ms"),
    ):
        assert list(lines[label].get_ydata()) == [getattr(row, name) for row in result.rows]


@needs_matplotlib
def test_a_png_picture(tmp_path):
    path = tmp_path / "bench.PNG"
    assert main([*SMALL, "--batch-sizes", "1,2", "--plot", str(path)]) == 0
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert width > 2 * height > 1000, "two panels side by side"


@needs_matplotlib
def test_the_same_run_gives_the_same_picture(tmp_path):
    result = bench.run_benchmark(config())
    for name in ("one.svg", "two.svg"):
        draw_benchmark(result, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@needs_matplotlib
def test_a_picture_of_wrong_answers_does_not_hide_them(tmp_path, monkeypatch, capsys):
    from morphogen.engine.cpu import CpuEngine
    from wrong_answers import SPOILS, spoiled_engine

    engine = spoiled_engine(CpuEngine, SPOILS["corrupted"], lambda queries, _: len(queries) > 1)
    monkeypatch.setitem(bench.OPENERS, "cpu", lambda pages, *_: engine(pages))
    path = tmp_path / "bench.svg"
    assert main([*SMALL, "--batch-sizes", "2", "--plot", str(path)]) == 1
    assert any("wrong answers" in text for text in texts(path))


@needs_matplotlib
def test_a_picture_that_cannot_be_written_costs_no_measurement(tmp_path, monkeypatch, capsys):
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "bench.svg")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    assert main([*SMALL, "--batch-sizes", "2", "--plot", str(tmp_path / "bench.svg")]) == 2
    output = capsys.readouterr()
    assert "equal" in output.out
    assert output.err == "morphogen: bench.svg: No space left on device\n"


@needs_matplotlib
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bench.pdf", "a plot must be a .png or .svg file, not 'bench.pdf'"),
        ("bench", "a plot must be a .png or .svg file, not 'bench'"),
        ("no/such/folder.png", "no/such/folder.png: No such file or directory"),
        ("folder.svg", "folder.svg: Is a directory"),
    ],
)
def test_bad_input(name, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.svg").mkdir()
    monkeypatch.setattr(bench, "run_benchmark", None)  # nothing is measured before
    assert main([*SMALL, "--plot", name]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert output.err.count("\n") == 1


@needs_matplotlib
@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_measured_for_a_picture_that_may_not_be_written(
    there, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "bench.svg"
    if there:
        path.touch()
    refused = path if there else tmp_path
    monkeypatch.setattr("os.access", lambda asked, mode: asked != refused)  # root may write
    monkeypatch.setattr(bench, "run_benchmark", None)
    assert main([*SMALL, "--plot", str(path)]) == 2
    assert capsys.readouterr() == ("", f"morphogen: {path}: Permission denied\n")


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "morphogen.bench.plot.importlib.util.find_spec",
        lambda name, found=importlib.util.find_spec: None if name == "matplotlib" else found(name),
    )
    monkeypatch.setattr(bench, "run_benchmark", None)
    assert main([*SMALL, "--plot", str(tmp_path / "bench.png")]) == 2
    assert capsys.readouterr().err == (
        "morphogen: matplotlib is not installed: pip install 'morphogen[plot]'\n"
    )
    with pytest.raises(ModuleNotFoundError):
        check_plot(tmp_path / "bench.png")


def test_without_a_plot_matplotlib_is_not_loaded():
    script = (
        "import sys; from morphogen.cli import main;"
        f"code = main({[*SMALL, '--batch-sizes', '1']!r});"
        "sys.exit(code or any(name.startswith('matplotlib') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)


@needs_matplotlib
def test_no_window_system_is_asked_for(tmp_path):
    script = (
        "import sys; from morphogen.cli import main;"
        f"code = main({[*SMALL, '--batch-sizes', '1', '--plot', str(tmp_path / 'a.png')]!r});"
        "sys.exit(code or 'matplotlib.pyplot' in sys.modules or 'tkinter' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)
