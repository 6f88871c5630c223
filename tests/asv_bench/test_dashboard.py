"""tools/dashboard.sh: what it measures, what it takes from other hosts, what a visitor sees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import pytest

import chart_browser
from chart_browser import Seen

pytest.importorskip("asv", reason="needs asv: the extra dashboard")

from asv.commands.publish import Publish  # type: ignore[import-untyped]

import dashboard
import dashboard_site
from asv_files import SPEEDUP, git, make_results

ROOT = Path(__file__).resolve().parents[2]
GPU_SPEEDUP = "gpu.Speedup.track_speedup_over_single_loop"
GPU = "some-gpu"
NEW_GPU = "new-gpu"  # has measured one commit only, and all its figures are alike
GPU_TABLE = "'65,536 pages'"
BENCH = r"^scan\.Speedup\..*\((2|4|8), 1\)$"

# A repository of its own, measured by the real suite

PROJECT = """[build-system]
requires = []
build-backend = "build"
backend-path = ["."]
"""
# No compiler: its wheel leads to the package that these tests use.
BACKEND = '''"""Builds a wheel that makes the packages of another environment importable."""

import zipfile

FILES = {{
    "morphogen.pth": "import site; site.addsitedir({site!r})\\n",
    "morphogen-0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: morphogen\\nVersion: 0\\n",
    "morphogen-0.dist-info/WHEEL":
        "Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
}}


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "morphogen-0-py3-none-any.whl"
    record = "".join(f"{{file}},,\\n" for file in [*FILES, "morphogen-0.dist-info/RECORD"])
    with zipfile.ZipFile(f"{{wheel_directory}}/{{name}}", "w") as wheel:
        for file, content in (FILES | {{"morphogen-0.dist-info/RECORD": record}}).items():
            wheel.writestr(file, content)
    return name
'''


@dataclass(frozen=True)
class Small:
    """A small repository and what the dashboard's tool does there."""

    folder: Path
    home: Path
    commits: tuple[str, ...]  # newest first; the last cannot be built

    @property
    def output(self) -> Path:
        return self.folder.parent / "site"

    @property
    def picture(self) -> Path:
        return self.folder.parent / "pictures" / "chart.png"

    def run(self, *arguments: str) -> dict[str, Any]:
        environment = os.environ | {
            "HOME": str(self.home),
            "PYTHON": sys.executable,
            "MORPHOGEN_BENCH_PAGES": "512",
        }
        command = [str(self.folder / "tools" / "dashboard.sh"), *arguments]
        command += ["--machine", "small", "--output", str(self.output), "--json"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        report: dict[str, Any] = json.loads(result.stdout)
        return report

    def values(self, machine: str, benchmark: str, other: str) -> dict[tuple[str, int], float]:
        """Figures in the result files by commit and queries, for one other parameter."""
        found = {}
        measured = "results" if machine == "small" else "merged"
        for file in (self.folder / "build/dashboard" / measured / machine).glob("*-*.json"):
            content = json.loads(file.read_text())
            results, (queries, others) = content["results"][benchmark][:2]
            for place, value in enumerate(results or ()):
                row, column = divmod(place, len(others))
                if others[column] == other and value is not None and isfinite(value):
                    found[content["commit_hash"][:8], int(queries[row])] = value
        return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    for tool in ("git", "npm", "bash"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    parent = tmp_path_factory.mktemp("dashboard")
    folder, home = parent / "repository", parent / "home"
    home.mkdir()
    ignore = shutil.ignore_patterns("results", ".asv", "__pycache__", "node_modules")
    for name in ("asv_bench", "kernels", "tests", "tools"):  # the suite uses parts of the others
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    (folder / ".gitignore").write_text("build/\n__pycache__/\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    backend = BACKEND.format(site=sysconfig.get_path("purelib"))
    commits: list[str] = []
    for text in ("raise SystemExit('cannot be built')\n", backend, backend + "\n"):
        (folder / "build.py").write_text(text)
        (folder / "pyproject.toml").write_text(PROJECT)
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", f"commit {len(commits)}")
        commits.insert(0, git(folder, "rev-parse", "HEAD"))
    return Small(folder, home, tuple(commits))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        chart_browser.find_browser()
    except chart_browser.BrowserMissingError as error:
        pytest.skip(f"needs a headless browser: {error}")
    with chart_browser.browser() as driver:
        yield driver


@pytest.fixture(scope="module")
def published(small: Small, browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Two commits measured, one that cannot be built, and the results of a host with a GPU."""
    report = small.run("--commits", "3", "--bench", BENCH)
    assert [(each["hash"], each["state"]) for each in report["commits"]] == [
        (small.commits[0], "measured"),
        (small.commits[1], "measured"),
        (small.commits[2], "not built"),
    ]
    suite = json.loads((small.folder / "build/dashboard/results/benchmarks.json").read_text())
    host = tmp_path_factory.mktemp("host")
    for number, commit in enumerate(small.commits[:2]):
        values = [1.5 + number / 8 + place / 16 for place in range(6)]
        make_results(host, GPU, commit, {GPU_SPEEDUP: values}, suite)
    alike = {GPU_SPEEDUP: [1.25] * 6}
    make_results(host, NEW_GPU, small.commits[0], alike, suite)
    picture = ("--picture", str(small.picture))
    report = small.run("--only-publish", "--gpu-results", str(host), *picture)
    assert [chart["machine"] for chart in report["speedup_charts"]] == [
        *("small", NEW_GPU, NEW_GPU, GPU, GPU),
    ]
    return small


# Seen through a browser

# How many pixels of the picture on the page have each colour.
COUNT_COLOURS = """
const picture = document.images[0];
const context = document.createElement('canvas').getContext('2d');
context.canvas.width = picture.naturalWidth;
context.canvas.height = picture.naturalHeight;
context.drawImage(picture, 0, 0);
const pixels = context.getImageData(0, 0, picture.naturalWidth, picture.naturalHeight).data;
return arguments[0].map(colour => {
    const wanted = [1, 3, 5].map(place => parseInt(colour.slice(place, place + 2), 16));
    let count = 0;
    for (let i = 0; i < pixels.length; i += 4)
        count += wanted.every((value, k) => Math.abs(pixels[i + k] - value) < 16);
    return count;
});
"""


def figures(seen: Seen) -> dict[tuple[str, int], float]:
    """What the series of 2, 4 and 8 queries show, by commit and queries."""
    found = {}
    for queries in (2, 4, 8):
        (label,) = [label for label in seen.series if f"queries-{queries}" in label.split("; ")]
        for point in seen.series[label]:
            found[point.commit[:8], queries] = point.value
    assert len(seen.series) == 3
    return found


@pytest.mark.slow
def test_the_speedup_chart_is_drawn(published: Small, browser: Any) -> None:
    with chart_browser.serve(published.output) as address:
        first = chart_browser.look(browser, f"{address}/")
        assert (first.elsewhere, first.errors) == ((), ())
        chart = chart_browser.follow(browser, "small, threads: 1")
    assert chart.drawn
    assert (chart.elsewhere, chart.errors) == ((), ())
    measured = published.values("small", SPEEDUP, "1")
    assert set(measured) == {
        (commit[:8], queries) for commit in published.commits[:2] for queries in (2, 4, 8)
    }
    assert figures(chart) == pytest.approx(measured)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "values"),
    [(GPU, [1.5, 1.625, 1.625, 1.75, 1.75, 1.875]), (NEW_GPU, [1.25, 1.25, 1.25])],
)
def test_the_chart_of_a_gpu_host_is_drawn(
    published: Small, browser: Any, machine: str, values: list[float]
) -> None:
    with chart_browser.serve(published.output) as address:
        chart_browser.look(browser, f"{address}/")
        chart = chart_browser.follow(browser, f"{machine}, table: 65,536 pages")
    assert chart.drawn
    assert (chart.elsewhere, chart.errors) == ((), ())
    assert sorted(figures(chart).values()) == values
    assert figures(chart) == published.values(machine, GPU_SPEEDUP, GPU_TABLE)


@pytest.mark.slow
def test_a_chart_that_is_wiped_off_is_not_taken_for_drawn(published: Small, browser: Any) -> None:
    with chart_browser.serve(published.output) as address:
        page = f"{address}/asv/#{SPEEDUP}?machine=small"
        assert chart_browser.look(browser, page).drawn
        browser.execute_script(
            "const canvas = jQuery('#main-graph').data('plot').getCanvas();"
            "canvas.getContext('2d').clearRect(0, 0, canvas.width, canvas.height);"
        )
        series = chart_browser.read_chart(browser)
    assert series
    assert not Seen(series, (), ()).drawn


@pytest.mark.slow
def test_a_site_without_results_has_no_chart(
    published: Small, browser: Any, tmp_path: Path
) -> None:
    """And asv's own page, which asks other hosts for scripts, is told from one that does not."""
    results = tmp_path / "results"
    results.mkdir()
    work = published.folder / "build" / "dashboard"
    shutil.copy(work / "results" / "benchmarks.json", results)
    config = dashboard.configure("main", results, tmp_path / "site")
    config.repo = str(published.folder)
    Publish.run(config, pull=False)
    with chart_browser.serve(tmp_path / "site") as address:
        page = f"{address}/#{SPEEDUP}?machine=small"
        asvs_own = chart_browser.look(browser, page)
        assert not asvs_own.drawn
        assert any(name.endswith("/jquery.flot.min.js") for name in asvs_own.elsewhere)
        dashboard_site.localise(tmp_path / "site", work / "scripts" / "node_modules")
        empty = chart_browser.look(browser, page)
    assert empty.elsewhere == ()
    assert not empty.drawn
    assert not any(empty.series.values())


@pytest.mark.slow
def test_the_picture_is_of_the_chart(published: Small, browser: Any) -> None:
    """It has the colours of the three series, in a browser's own view of it."""
    with chart_browser.serve(published.picture.parent) as address:
        browser.get(f"{address}/{published.picture.name}")
        counts = browser.execute_script(COUNT_COLOURS, ["#247aad", "#e24a33", "#988ed5"])
    assert min(counts) > 20


@pytest.mark.slow
def test_what_the_tool_leaves_alone(published: Small) -> None:
    assert git(published.folder, "status", "--porcelain") == ""
    assert not (published.home / ".asv-machine.json").exists()
    assert not (published.folder / "asv_bench" / "results").exists()
    assert {path.name for path in published.output.iterdir()} == {"asv", "index.html"}
