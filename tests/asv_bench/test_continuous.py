"""Losses of speed are caught as asv_bench/README.md says: real asv, our suite, a paced package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

asv_util = pytest.importorskip("asv.util")

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.slow

SUITE = HERE.parents[1] / "asv_bench"
PACE = {"EXPANSION": 1e-7, "SCAN": 20e-3, "TWO_THREADS": 0.5, "LOOP": 1.0}
SLOW_EXPANSION = {**PACE, "EXPANSION": 2e-7}
SLOW_SCAN = {**PACE, "SCAN": 23e-3}
IDLE_THREAD = {**PACE, "TWO_THREADS": 1.0}
DRIFT = [{**PACE, "SCAN": 20e-3 * 1.09**n} for n in range(9)]

EXPANSIONS = {f"keys.Expansion.track_cost_of_eval_full({n})" for n in (65_536, 1_048_576)}
SCANS = {f"scan.Scan.track_cost('2 x 3', {threads})" for threads in (1, 2)}
SCAN_BY_TWO = {"scan.Scan.track_cost('2 x 3', 2)"}
BENCH = r"--bench=(Expansion\.|scan\.Scan\..*'2 x 3)"


class History:
    """A small repository with a commit for each pace."""

    def __init__(self, folder: Path, paces: list[dict[str, float]]) -> None:
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch=main")
        (folder / "morphogen").mkdir()
        shutil.copy(HERE / "paced_package.py", folder / "morphogen" / "__init__.py")
        (folder / ".gitignore").write_text("*.json\n/asv\n")
        for number, pace in enumerate(paces):
            self.commit(number, "".join(f"{name} = {value}\n" for name, value in pace.items()))
        settings = asv_util.load_json(str(SUITE / "asv.conf.json"), js_comments=True)
        settings |= {
            "repo": str(folder),
            "benchmark_dir": str(SUITE / "benchmarks"),
            "environment_type": "commit",
            "plugins": [".commit_environment"],
            **{name: str(folder / "asv" / name) for name in ("env_dir", "results_dir", "html_dir")},
        }
        (folder / "asv.conf.json").write_text(json.dumps(settings))

    def git(self, *arguments: str, **environment: str) -> str:
        identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
        command = ["git", "-C", str(self.folder), *identity, *arguments]
        result = subprocess.run(
            command, env=os.environ | environment, check=True, capture_output=True, text=True
        )
        return result.stdout.strip()

    def commit(self, number: int, pace: str) -> None:
        (self.folder / "pace.py").write_text(pace)
        self.git("add", "--all")
        # A day apart: asv orders commits by their dates.
        date = f"@{number * 86_400 + 1_000_000_000} +0000"
        command = ("commit", "--quiet", "--allow-empty", "--message=a pace")
        self.git(*command, GIT_COMMITTER_DATE=date, GIT_AUTHOR_DATE=date)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PYTHONPATH": str(HERE),
            "PYTHONDONTWRITEBYTECODE": "1",  # of two versions within a second, Python keeps one
            "HOME": str(self.folder),
            "MORPHOGEN_BENCH_BYTES": str(1 << 20),
        }
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def compare(self, accepted: dict[str, str] | None = None) -> tuple[int, dict[str, set[str]]]:
        """The exit status, and what is worse than the parent and than the first commit."""
        pinned = self.git("rev-list", "--max-parents=0", "HEAD")
        budget = {"pinned": pinned, "accepted": accepted or {}}
        (self.folder / "budget.json").write_text(json.dumps(budget))
        files = [f"--config={self.folder}/asv.conf.json", f"--budget={self.folder}/budget.json"]
        result = self.run(str(SUITE / "continuous.py"), *files, BENCH)
        print(result.stdout, result.stderr)
        worse: dict[str, set[str]] = {"HEAD^": set(), pinned: set()}
        for line in result.stdout.splitlines():
            name, found, base = line.partition(" is worse than at ")
            if found:
                worse[base.partition(":")[0]].add(name)
        return result.returncode, {"parent": worse["HEAD^"], "pinned": worse[pinned]}


@pytest.mark.parametrize(
    ("paces", "status", "parent", "pinned"),
    [
        pytest.param([PACE, PACE], 0, set(), set(), id="the-same"),
        pytest.param([PACE, SLOW_EXPANSION], 1, EXPANSIONS, EXPANSIONS, id="expansion-twice"),
        pytest.param([PACE, SLOW_SCAN], 1, SCANS, SCANS, id="scan-15%-slower"),
        pytest.param([PACE, IDLE_THREAD], 1, SCAN_BY_TWO, SCAN_BY_TWO, id="idle-thread"),
        pytest.param(DRIFT, 1, set(), SCANS, id="eight-times-9%"),
    ],
)
def test_what_is_slower_than_the_parent_or_the_pinned_commit_fails(
    tmp_path: Path,
    paces: list[dict[str, float]],
    status: int,
    parent: set[str],
    pinned: set[str],
) -> None:
    found = History(tmp_path, paces).compare()
    assert found == (status, {"parent": parent, "pinned": pinned})


def test_a_loss_can_be_accepted(tmp_path: Path) -> None:
    history = History(tmp_path, [PACE, SLOW_EXPANSION])
    assert history.compare(accepted={r"Expansion\.": "keys are checked once more"})[0] == 0


def test_a_benchmark_that_fails_is_no_comparison(tmp_path: Path) -> None:
    history = History(tmp_path, [PACE])
    history.commit(1, "EXPANSION, SCAN, TWO_THREADS, LOOP = None, 1.0, 1.0, 1.0\n")
    assert history.compare()[0] == 2


def test_asvs_own_page_lists_a_slower_scan_and_no_greater_speed_up(tmp_path: Path) -> None:
    after = {**SLOW_SCAN, "LOOP": 2.0}
    history = History(tmp_path, [PACE, PACE, PACE, after, after, after])
    history.run("-m", "asv", "machine", "--yes")
    bench = r"--bench=scan\.(Scan\..*'2 x 3|Speedup)"
    run = history.run("-m", "asv", "run", "ALL", "--launch-method=forkserver", bench)
    assert run.returncode == 0, run.stderr
    publish = history.run("-m", "asv", "publish")
    assert publish.returncode == 0, publish.stderr
    page: dict[str, Any] = json.loads((tmp_path / "asv/html_dir/regressions.json").read_text())
    assert {regression[0] for regression in page["regressions"]} == SCANS
    (graph,) = (tmp_path / "asv/html_dir/graphs").glob("arch-*/**/scan.Speedup*.json")
    speedups = [values[0] for _, values in json.loads(graph.read_text())]
    assert speedups[-1] > 1.5 * speedups[0]
