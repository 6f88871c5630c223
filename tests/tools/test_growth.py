"""tools/growth.py: what it plans and leaves out, the CSV file, and plots that show what it says."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import growth
from growth_plots import draw, plot_name, save_plots, series
from growth_points import SECTIONS, Point, Spread, read_points, write_points

MIB = 1 << 20
TINY = ["--total", "1", "--largest", "2", "--rounds", "1"]


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    files = ["--csv", str(folder / "growth.csv"), "--plots", str(folder / "plots")]
    monkeypatch.setattr(sys, "argv", ["growth.py", *files, *arguments])
    return growth.main()


def points() -> list[Point]:
    """Two lines of four points in every section."""
    found = []
    for section in SECTIONS:
        for queries in (0, 1, 2):
            for step in range(4):
                ms = (1 + queries) * 2.0**step
                at = Point(
                    section,
                    page_size=16 << step if section == "page_size" else 4096,
                    pages=1024 << step if section == "pages" else 2048,
                    threads=1 + step if section == "threads" else 1,
                    queries=queries,
                    rounds=5,
                    ms=Spread(0.5 * ms, ms, 1.5 * ms),
                    ratio=Spread(1.0 + queries, 1.5 + queries, 2.0 + queries),
                )
                if section != "batch" or step == 0:
                    found.append(at)
    return found


def test_a_tiny_run_measures_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert run(monkeypatch, tmp_path, *TINY) == 0
    facts, found = read_points(tmp_path / "growth.csv")
    assert set(facts) == {at.section for at in found} == set(SECTIONS)
    assert {at.x for at in found if at.section == "page_size"} == {2**at for at in range(4, 21)}
    pages = {(at.page_size, at.pages) for at in found if at.section == "pages"}
    assert pages == {(256, 1024 << step) for step in range(4)}  # 4 KiB pages: 4 MiB at least
    assert {0, 1, 32, 64} <= {at.queries for at in found if at.section == "batch"}
    threads = {at.threads for at in found if at.section == "threads"}
    assert 1 in threads
    assert max(threads) == 4 * len(growth.os.sched_getaffinity(0))
    for at in found:
        assert 0 < at.ms.low <= at.ms.median <= at.ms.high
        assert at.ratio.median == 1 if at.queries == 0 else at.ratio.median > 0
    for section in SECTIONS:
        assert (tmp_path / "plots" / plot_name(section)).stat().st_size < 200_000


def test_one_section_leaves_the_others_as_they_were(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "growth.csv"
    old = points()
    write_points(file, dict.fromkeys(SECTIONS, "an old machine"), old)
    assert run(monkeypatch, tmp_path, *TINY, "--only", "threads") == 0
    facts, found = read_points(file)
    kept = [at for at in found if at.section != "threads"]
    assert kept == [at for at in old if at.section != "threads"]
    assert {s for s, text in facts.items() if text == "an old machine"} == set(SECTIONS) - {
        "threads"
    }
    assert all(at.rounds == 1 for at in found if at.section == "threads")


def test_csv_gives_back_what_was_written(tmp_path: Path):
    write_points(tmp_path / "a.csv", {"batch": "a machine: with colons"}, points())
    assert read_points(tmp_path / "a.csv") == ({"batch": "a machine: with colons"}, points())


@pytest.mark.parametrize(
    ("line", "replacement", "message"),
    [
        (0, "# nonsense", "line 1: expected '# SECTION: FACTS'"),
        (1, "section,page_size", "line 2: expected 'section,page_size,pages"),
        (2, "pages,4096,1024,1,0,0,5,1,2,3,1,2", "line 3"),
        (2, "colours,4096,1024,1,0,0,5,1,2,3,1,2,3", "line 3"),
        (2, "pages,4096,many,1,0,0,5,1,2,3,1,2,3", "line 3"),
    ],
)
def test_a_spoiled_csv_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    line: int,
    replacement: str,
    message: str,
):
    file = tmp_path / "spoiled.csv"
    write_points(file, {"pages": "a machine"}, points())
    lines = file.read_text().splitlines()
    lines[line] = replacement
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        read_points(file)
    assert run(monkeypatch, tmp_path, "--from-csv", str(file)) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize("section", SECTIONS)
def test_lines_go_through_the_points(section: str):
    chosen = [at for at in points() if at.section == section]
    figure = draw(chosen)
    for axes, panel in zip(figure.axes, ("time", "ratio"), strict=True):
        lines = {line.get_gid(): line for line in axes.get_lines() if line.get_gid()}
        expected = series(chosen)
        assert lines.keys() == {f"{panel}: {label}" for label in expected}
        for label, members in expected.items():
            values = [(at.ms if panel == "time" else at.ratio).median for at in members]
            drawn = lines[f"{panel}: {label}"].get_xydata()
            assert np.array_equal(drawn, list(zip((at.x for at in members), values, strict=True)))
        assert axes.get_xlabel()
        assert axes.get_ylabel() in ("time of a call, ms", "times as long as a pure read")


def test_the_file_shows_every_line_and_point(tmp_path: Path):
    (file,) = save_plots([at for at in points() if at.section == "pages"], tmp_path)
    text = file.read_text()
    places = []
    for label in ("pure read", "1 query", "2 queries"):
        found = re.search(rf'<g id="time: {label}">\s*<path d="([^"]+)"', text)
        assert found, label
        numbers = re.findall(r"-?\d+(?:\.\d+)?", found[1])
        places.append(np.array(numbers, dtype=float).reshape(-1, 2))
    x, y = (np.array([line[:, axis] for line in places]) for axis in (0, 1))
    # Both scales are logarithmic: doublings are equal steps, and later is up.
    assert np.allclose(np.diff(x), np.diff(x)[0, 0])
    assert np.allclose(np.diff(y), np.diff(y)[0, 0])
    assert np.diff(y).max() < 0
    assert np.allclose((y[0] - y[1]) / (y[0] - y[2]), np.log(2) / np.log(3), rtol=1e-4)
    for words in ("pages in the table", "time of a call, ms", "2 queries"):
        assert f">{words}</text>" in text


def test_drawing_again_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    write_points(tmp_path / "a.csv", {}, points())
    drawn = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        assert run(monkeypatch, folder, "--from-csv", str(tmp_path / "a.csv")) == 0
        assert not (folder / "growth.csv").exists()
        drawn.append([(folder / "plots" / plot_name(s)).read_bytes() for s in SECTIONS])
    assert drawn[0] == drawn[1]
    assert all(b"font-face" not in file and b"dc:date" not in file for file in drawn[0])


def test_tables_that_do_not_fit_the_memory_are_left_out():
    cases = growth.plan(["pages"], 256 * MIB, 1024 * MIB, threads=1)
    assert max(case.pages for case in cases if case.page_size == 256) == 2**22
    assert max(case.pages for case in cases if case.page_size == 4096) == 2**18
    assert growth.within_memory(cases, 1 << 40) == (cases, [])
    fit, left_out = growth.within_memory(cases, 256 * MIB)
    assert {*fit, *left_out} == {*cases}
    assert max(case.memory for case in fit) < 256 * MIB <= min(c.memory for c in left_out) / 0.9
    # The answer and the sums of wide pages count, too.
    wide = replace(cases[0], pages=1, page_size=MIB, batches=(32,), threads=2)
    assert wide.memory == MIB + 3 * 3 * 32 * MIB


def test_what_is_left_out_is_said_and_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr(growth, "available_memory", lambda: 2 * MIB)
    assert run(monkeypatch, tmp_path, *TINY, "--only", "pages") == 0
    facts, found = read_points(tmp_path / "growth.csv")
    assert "left out for lack of memory: 8192 x 256" in facts["pages"]
    assert max(at.pages for at in found) == 4096
    said = " ".join(capsys.readouterr().err.split())
    assert "left out, 2.0 MiB of memory available: pages: 8,192 pages of 256 bytes" in said


def test_nothing_that_fits_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr(growth, "available_memory", lambda: 1000)
    assert run(monkeypatch, tmp_path, *TINY) == 1
    assert "nothing fits the memory" in capsys.readouterr().err
    assert not (tmp_path / "growth.csv").exists()


def test_wrong_answers_end_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(growth.np, "array_equal", lambda first, second: False)
    with pytest.raises(SystemExit, match="the batch differs from the single query"):
        run(monkeypatch, tmp_path, *TINY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds must be in 1..10000, not 0"),
        (["--threads", "0"], "--threads must be in 1..1024, not 0"),
        (["--total", "0"], "--total must be in 1..1048576, not 0"),
        (["--total", "8", "--largest", "4"], "--largest must be --total (8) or more, not 4"),
        (["--only", "colours"], "invalid choice: 'colours'"),
        (["--from-csv", "/no/such.csv"], "there is no such file"),
        (["--from-csv", __file__, "--only", "pages"], "it takes no --only"),
    ],
)
def test_bad_options_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        growth.parse_arguments(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
