"""tools/measure/sweep.py: cliffs, and the picture. The figures depend on the machine."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import sweep
from morphogen.bench.workload import random_pages

# 64 bytes cost twice as much as their neighbours.
CLIFF = {(1, 1): {48: 1.0, 64: 2.0, 100: 1.0}, (8, 3): {48: 3.0, 64: 3.0, 100: 2.0}}


def write_result(path: Path, costs: sweep.Costs, **machine: str) -> Path:
    """Write what targets.py --json would write."""
    rows = [
        {"section": f"Page sizes, {q} x {k} over 256 MiB, one thread", "what": f"{size:,} bytes"}
        | {"value": cost}
        for (q, k), by_size in costs.items()
        for size, cost in by_size.items()
    ]
    facts = dict.fromkeys(sweep.SAME, "the same") | {"date": "today"} | machine
    path.write_text(json.dumps({"machine": facts, "rows": rows}))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["sweep.py", *map(str, arguments)])
    return sweep.main()


def test_the_sizes_are_close_to_each_other_and_have_odd_neighbours() -> None:
    assert list(sweep.SIZES) == sorted(set(sweep.SIZES))
    assert (sweep.SIZES[0], sweep.SIZES[-1]) == (1, 4 << 20)
    assert all(high <= 1.5 * low for low, high in itertools.pairwise(sweep.SIZES[1:]))
    for border in (16, 64, 256, 512, 4096, 8192, 65536):
        assert {border - 1, border} <= set(sweep.SIZES)


def test_rows_of_a_small_table() -> None:
    rows = list(sweep.sweep_rows(random_pages(256, 256, seed=1), [100, 1, 9], rounds=1))
    costs = [row for row in rows if row.section.startswith("Page sizes, 8 x 3 over 64.0 KiB")]
    assert [row.what for row in costs] == ["1 bytes", "9 bytes", "100 bytes"]
    assert all(row.value > 0 and row.limit is None for row in costs)
    pairs = [row for row in rows if row.section.startswith("Neighbouring page sizes, 8 x 3:")]
    assert [row.what for row in pairs] == ["1 and 9 bytes", "9 and 100 bytes"]
    assert all(row.value >= 1 and row.limit == 1.6 for row in pairs)
    assert pairs[0].value == pytest.approx(
        max(costs[0].value / costs[1].value, costs[1].value / costs[0].value)
    )
    assert len(rows) == 4 * (3 + 2)


def test_a_cliff_misses_the_target_up_and_down() -> None:
    rows = list(sweep.neighbour_rows(CLIFF))
    assert [(row.what, row.value, row.missed) for row in rows] == [
        ("48 and 64 bytes", 2.0, True),
        ("64 and 100 bytes", 2.0, True),
        ("48 and 64 bytes", 1.0, False),
        ("64 and 100 bytes", 1.5, False),
    ]


def test_wrong_answers_end_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "reconstruct", lambda one, two: one.pages)
    with pytest.raises(SystemExit, match="pages of 9 bytes: the answers do not give the pages"):
        list(sweep.sweep_rows(np.ones((64, 64), dtype=np.uint8), [9], rounds=1))


def test_pieces_are_judged_and_drawn_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    parts = [
        write_result(tmp_path / f"{size}.json", {(1, 1): {size: cost}}, date=str(size))
        for size, cost in {1: 3.0, 2: 1.0, 4096: 1.1}.items()
    ]
    picture = tmp_path / "sweep.svg"
    assert run(monkeypatch, *parts, "--plot", picture) == 0
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "1 and 2 bytes 3.00x <= 1.60x MISSED" in printed
    assert "2 and 4,096 bytes 1.10x <= 1.60x met" in printed
    assert "1 of 2 targets are met." in printed
    assert "date" not in printed, "it is not the same in all"
    text = picture.read_text(encoding="utf-8")
    for words in ("1 x 1", "a cliff: neighbours 1.6 times apart", "size of a page"):
        assert f">{words}</text>" in text


def test_the_picture_marks_cliffs_alone_and_is_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = [tmp_path / name for name in ("one.svg", "two.svg", "even.svg")]
    for path, costs in zip(paths, (CLIFF, CLIFF, {(1, 1): {48: 1.0, 64: 1.2}}), strict=True):
        sweep.draw(costs, path)
    one, two, even = (path.read_text(encoding="utf-8") for path in paths)
    assert one == two
    assert one.count("stroke: #ff0000") == 3, "two cliffs and the legend"
    assert "stroke: #ff0000" not in even


@pytest.mark.parametrize(
    ("machine", "costs", "message"),
    [
        ({"commit": "other"}, CLIFF, "commit is 'other', not 'the same'"),
        ({}, {}, "no file has rows of the section sweep"),
    ],
)
def test_results_that_cannot_be_judged_together_are_refused(
    machine: dict[str, str],
    costs: sweep.Costs,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = write_result(tmp_path / "first.json", costs)
    second = write_result(tmp_path / "second.json", costs, **machine)
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, first, second)


def test_a_picture_that_cannot_be_drawn_is_refused_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, tmp_path / "missing.json", "--plot", tmp_path / "sweep.pdf")
    assert ended.value.code == 2
    assert "a plot must be a .png or .svg file, not 'sweep.pdf'" in capsys.readouterr().err
