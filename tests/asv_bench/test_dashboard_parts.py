"""The dashboard's parts: asv's result files, the published pages, wrong usage."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("asv", reason="needs asv: the extra dashboard")

from asv.commands.publish import Publish  # type: ignore[import-untyped]
from asv.results import iter_results_for_machine_and_hash  # type: ignore[import-untyped]

import dashboard
import dashboard_results
import dashboard_site
from asv_files import SPEEDUP, SUITE, make_commits, make_results
from dashboard_results import Commit, Outcome, ResultsError, Suite
from dashboard_site import OutputError, SiteError, ToolMissingError

SITE = Path(__file__).resolve().parents[2] / "asv_bench" / "site"

# Result files


def outcome(folder: Path, commit: str = "c" * 40) -> Outcome:
    found = iter_results_for_machine_and_hash(str(folder), "m", commit)
    return Outcome.of(Commit(commit, "first line"), list(found), SUITE)


@pytest.mark.parametrize(
    ("values", "ran", "state", "counts"),
    [
        ({"a.track": [1.0, 2.0], "b.track": [3.0]}, True, "measured", (2, 0, 0)),
        ({"a.track": [1.0, None], "b.track": [float("nan")]}, True, "measured", (1, 1, 0)),
        ({"a.track": [1.0, 2.0], "b.track": [None]}, True, "measured", (1, 0, 1)),
        ({"a.track": [None, None], "b.track": [None]}, True, "failed", (0, 0, 2)),
        ({"a.track": [None, None], "b.track": [None]}, False, "not built", (0, 0, 2)),
    ],
)
def test_what_a_commit_has(
    tmp_path: Path,
    values: dict[str, list[float | None]],
    ran: bool,
    state: str,
    counts: tuple[int, int, int],
) -> None:
    found = outcome(make_results(tmp_path, "m", "c" * 40, values, ran=ran))
    assert (found.state, (found.measured, found.inapplicable, found.failed)) == (state, counts)
    assert outcome(tmp_path, "d" * 40).state == "no results"


def test_merged_results_are_all_there_and_the_later_file_is_taken(tmp_path: Path) -> None:
    commit, other = "c" * 40, "d" * 40
    first = make_results(tmp_path / "first", "m", commit, {"b.track": [1.0]})
    make_results(first, "m", other, {"b.track": [2.0]})
    second = make_results(tmp_path / "second", "m", commit, {"b.track": [3.0]})
    host = make_results(tmp_path / "host", "gpu", commit, {"b.track": [4.0]})
    merged = tmp_path / "merged"
    dashboard_results.merge([first, second, host / "gpu"], merged)
    series = dashboard_results.read_series(merged, "b.track", [commit, other])
    assert {each.machine: each.points for each in series} == {
        "gpu": ((commit, 4.0),),
        "m": ((commit, 3.0), (other, 2.0)),
    }
    assert dashboard_results.read_suite(merged) == SUITE


def test_what_asv_would_not_show_is_said(tmp_path: Path) -> None:
    known, unknown = "c" * 40, "d" * 40
    older = {name: {**SUITE["b.track"], "name": name, "version": "0"} for name in ("b", "gone")}
    make_results(tmp_path, "old", known, {"b": [1.0], "gone": [1.0]}, older)
    newer = {"b": {**older["b"], "version": "1"}}
    make_results(tmp_path, "other", unknown, {"b": [1.0]}, newer)
    make_results(tmp_path, "shown", known, {"b": [1.0]}, newer)
    assert sorted(dashboard_results.unshown(tmp_path, frozenset({known}))) == [
        "old, commit cccccccc: measured by another version of the benchmark: b",
        "old, commit cccccccc: the suite no longer has gone",
        "other, commit dddddddd: not a commit of this branch",
    ]


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"expected asv's results .* not an empty"):
        dashboard_results.check_results(tmp_path)
    with pytest.raises(ResultsError, match="not a missing one"):
        dashboard_results.check_results(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"commit_hash": "c"}'])
def test_spoiled_results_are_refused(tmp_path: Path, content: str) -> None:
    folder = make_results(tmp_path, "m", "c" * 40, {"b.track": [1.0]})
    dashboard_results.check_results(folder)
    (folder / "m" / "spoiled.json").write_text(content)
    with pytest.raises(ResultsError, match=r"spoiled\.json: expected"):
        dashboard_results.check_results(folder)


def test_results_in_the_folder_of_another_machine_are_refused(tmp_path: Path) -> None:
    folder = make_results(tmp_path, "m", "c" * 40, {"b.track": [1.0]})
    (folder / "m" / "machine.json").write_text('{"machine": "n"}')
    with pytest.raises(ResultsError, match="expected results of machine 'n', not of 'm'"):
        dashboard_results.check_results(folder)


# The site


def test_the_first_page_has_the_newest_figures_and_escapes_names(tmp_path: Path) -> None:
    params = {"params": [["2", "16"], ["1"]], "param_names": ["queries", "threads"]}
    suite = {SPEEDUP: {"name": SPEEDUP, "version": "1", **params}}
    for commit, speedup in (("c" * 40, 1.25), ("d" * 40, 1.5)):
        make_results(tmp_path, "<m>", commit, {SPEEDUP: [speedup, 9.0]}, suite)
    page = dashboard_site.first_page(tmp_path, ["c" * 40, "d" * 40], "now")
    assert "<td>1.50x <small>(1.25x)</small></td><td><code>dddddddd</code></td>" in page
    assert "9.00" not in page  # 16 queries: not in this table
    assert "<m>" not in page
    link = f"asv/#{SPEEDUP}?machine=%3Cm%3E&amp;p-queries=2&amp;p-threads=1&amp;x-axis-scale=even"
    assert f'href="{link}"' in page


def test_the_link_to_a_chart() -> None:
    selection = [("queries", "2"), ("table", "'65,536 pages'")]
    address = "#b?machine=m%2F&p-queries=2&p-table=%2765%2C536%20pages%27"
    assert dashboard_site.chart_link("m/", "b", selection, commits=1) == address
    even = f"{address}&x-axis-scale=even"
    assert dashboard_site.chart_link("m/", "b", selection, commits=2) == even


TRACK = {"version": "1", "type": "track", "unit": "x", "params": [], "param_names": []}


def regressions(folder: Path, suite: Suite, after: dict[str, float]) -> list[str]:
    """What asv lists where benchmarks gave 1 on six commits, and something else on six more."""
    commits, results = make_commits(folder / "repository", 12), folder / "results"
    for number, commit in enumerate(commits):
        values = {
            name: [1.0 if number < 6 else value] * (2 if suite[name]["params"] else 1)
            for name, value in after.items()
        }
        make_results(results, "m", commit, values, suite)
    config = dashboard.configure("main", results, folder / "site")
    config.repo = str(folder / "repository")
    Publish.run(config, pull=False)
    found = json.loads((folder / "site" / "regressions.json").read_text())["regressions"]
    return sorted(name for name, *_ in found)


def test_a_ratio_that_rises_is_a_regression_and_a_speedup_that_rises_is_none(
    tmp_path: Path,
) -> None:
    ratio = "scan.NaiveNumpy.track_naive_numpy_ratio_to_read"
    suite: Suite = {
        SPEEDUP: {**TRACK, "name": SPEEDUP, "params": [["2", "4"]], "param_names": ["queries"]},
        ratio: {**TRACK, "name": ratio},
    }
    assert regressions(tmp_path, suite, {SPEEDUP: 2.0, ratio: 2.0}) == [ratio]


def test_a_rise_below_the_threshold_of_its_kind_is_no_regression(tmp_path: Path) -> None:
    """asv's own is 5%, and it heeds no key of the configuration that it does not know."""
    after = {
        "scan.track_little": 1.08,
        "scan.track_more": 1.15,
        "scan.time_little": 1.15,
        "scan.time_more": 1.25,
        "importing.track_little": 1.25,
        "importing.track_more": 1.35,
    }
    suite: Suite = {name: {**TRACK, "name": name} for name in after}
    assert regressions(tmp_path, suite, after) == sorted(n for n in after if n.endswith("more"))


def test_a_page_that_asks_for_something_new_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<script src="https://elsewhere/new.js"></script>')
    with pytest.raises(SiteError, match=r"knows no new\.js"):
        dashboard_site.localise(tmp_path, tmp_path)


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<h1>Mine</h1>")
    assert (
        dashboard.main(["--only-publish", "--branch", "HEAD", "--output", str(tmp_path)])
        == dashboard.WRONG_USAGE
    )
    (tmp_path / "index.html").unlink()
    (tmp_path / "asv").mkdir()
    with pytest.raises(OutputError, match="expected none, or a site of asv"):
        dashboard_site.check_output(tmp_path)
    with pytest.raises(OutputError, match="expected a folder"):
        dashboard_site.check_output(Path(__file__))


def test_tools_that_are_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    git = shutil.which("git")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dashboard.main(["--only-publish"]) == dashboard.TOOL_MISSING
    (tmp_path / "git").symlink_to(git or "git is not here")
    picture = ["--only-publish", "--picture", str(tmp_path / "picture.png")]
    assert dashboard.main(picture) == dashboard.TOOL_MISSING
    with pytest.raises(ToolMissingError, match="npm is not here"):
        dashboard_site.fetch_scripts(SITE, tmp_path / "scripts")
    error = capsys.readouterr().err
    assert "git is not here" in error
    assert "chromium and chromedriver not found on PATH" in error


def test_scripts_that_npm_cannot_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no such package >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SiteError, match="npm ci failed:\nno such package"):
        dashboard_site.fetch_scripts(SITE, tmp_path / "scripts")


def test_the_lock_file_pins_the_packages_of_all_scripts() -> None:
    wanted = json.loads((SITE / "package.json").read_text())["dependencies"]
    lock = json.loads((SITE / "package-lock.json").read_text())["packages"]
    assert {name: lock[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert {file.partition("/")[0] for file in dashboard_site.NPM_FILES.values()} == set(wanted)
    assert all(entry["integrity"] for place, entry in lock.items() if place)


def test_nothing_to_publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "asv.conf.json").write_text((SITE.parent / "asv.conf.json").read_text())
    monkeypatch.setattr(dashboard, "WORK", tmp_path)
    monkeypatch.setattr(dashboard, "SUITE", tmp_path)
    output = tmp_path / "site"
    assert dashboard.main(["--only-publish", "--branch", "HEAD", "--output", str(output)]) == 1
    assert "nothing is measured yet" in capsys.readouterr().err
    assert not output.exists()


def test_the_report_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commits = [
        Outcome("c" * 40, "Do [more]", "measured", 3, 1, 2),
        Outcome("d" * 40, "Do less", "not built", 0, 0, 6),
    ]
    dashboard.report(commits, [], dashboard.parse(["--output", str(tmp_path)]))
    output = capsys.readouterr().out
    rows = [re.findall(r"[^│ ]+(?: [^│ ]+)*", line) for line in output.splitlines() if "│" in line]
    assert rows == [
        ["cccccccc", "Do [more]", "measured", "3", "1", "2"],
        ["dddddddd", "Do less", "not built", "0", "0", "6"],
    ]
    assert "http.server --bind 127.0.0.1 8000" in output


def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = ["--only-publish", "--branch", "HEAD", "--gpu-results", str(tmp_path / "nowhere")]
    assert dashboard.main(nowhere) == dashboard.WRONG_USAGE
    assert dashboard.main(["--branch", "nowhere"]) == dashboard.WRONG_USAGE
    for count in ("0", "many"):
        with pytest.raises(SystemExit) as exit_:
            dashboard.main(["--commits", count])
        assert exit_.value.code == dashboard.WRONG_USAGE
        assert f"expected 1 commit or more, not {count}" in capsys.readouterr().err
