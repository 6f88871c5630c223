"""asv catches losses of speed as asv_bench/README.md says: our suite over a paced package."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from small_repository import HERE, SUITE, SmallRepository

pytestmark = pytest.mark.slow

Pace = dict[str, float | str]
PACE: Pace = {"EXPANSION": 1e-7, "SCAN": 20e-3, "TWO_THREADS": 0.5, "LOOP": 1.0}
SLOW_EXPANSION = {**PACE, "EXPANSION": 2e-7}
SLOW_SCAN = {**PACE, "SCAN": 23e-3}

EXPANSIONS = {f"keys.Expansion.track_cost_of_eval_full({n})" for n in (65_536, 1_048_576)}
SCANS = {f"scan.Scan.track_cost('2 x 3', {threads})" for threads in (1, 2)}


def make_history(folder: Path, paces: list[Pace]) -> SmallRepository:
    """Make a repository with a commit for each pace."""
    repository = SmallRepository(folder, environment_type="commit", plugins=[".commit_environment"])
    (folder / "morphogen").mkdir()
    shutil.copy(HERE / "paced_package.py", folder / "morphogen" / "__init__.py")
    for number, pace in enumerate(paces):
        text = "".join(f"{name} = {value!r}\n" for name, value in pace.items())
        (folder / "pace.py").write_text(f"{text}# {number}\n")  # a commit that is measured
        repository.commit()
    return repository


def compare(folder: Path, paces: list[Pace], **accepted: str) -> tuple[int, set[str], set[str]]:
    """Return the exit status, and the losses against the parent and against the first commit."""
    repository = make_history(folder, paces)
    pinned = repository.run("git", "rev-list", "--max-parents=0", "HEAD").stdout.strip()
    (folder / "budget.json").write_text(json.dumps({"pinned": pinned, "accepted": accepted}))
    bench = r"--bench=(Expansion\.|scan\.Scan\..*'2 x 3)"
    config = f"--config={repository.config}"
    result = repository.run(sys.executable, SUITE / "continuous.py", config, bench, "--repeats=1")
    found = re.findall(r"^(.+) is worse than at (\S+):", result.stdout, re.M)
    parent, first = ({name for name, at in found if at == base} for base in ("HEAD^", pinned))
    return result.returncode, parent, first


@pytest.mark.parametrize(
    ("paces", "parent", "pinned"),
    [
        ([PACE, PACE], set(), set()),
        ([PACE, {**SLOW_SCAN, "EXPANSION": 2e-7}], EXPANSIONS | SCANS, EXPANSIONS | SCANS),
        ([PACE, {**PACE, "TWO_THREADS": 1.0}], {max(SCANS)}, {max(SCANS)}),
        ([{**PACE, "SCAN": 20e-3 * 1.09**n} for n in range(9)], set(), SCANS),
    ],
    ids=["the-same", "expansion-twice-and-scan-15%-slower", "idle-thread", "eight-times-9%"],
)
def test_costs_above_the_parent_s_or_the_pinned_commit_s_fail(
    tmp_path: Path, paces: list[Pace], parent: set[str], pinned: set[str]
) -> None:
    assert compare(tmp_path, paces) == (1 if pinned else 0, parent, pinned)


def test_a_commit_of_documents_and_tests_is_not_measured(tmp_path: Path) -> None:
    repository = make_history(tmp_path, [PACE])
    for path in ("docs/conf.py", "tests/test_it.py"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).touch()
    repository.commit()
    (tmp_path / "budget.json").write_text(json.dumps({"pinned": "HEAD^", "accepted": {}}))
    config = f"--config={repository.config}"
    result = repository.run(sys.executable, SUITE / "continuous.py", config)
    assert result.returncode == 0
    assert result.stdout == 2 * "HEAD differs from HEAD^ in documents and tests only\n"


def test_the_commit_that_is_compared_must_exist(tmp_path: Path) -> None:
    repository = make_history(tmp_path, [PACE])
    (tmp_path / "budget.json").write_text(json.dumps({"pinned": "HEAD", "accepted": {}}))
    config = f"--config={repository.config}"
    result = repository.run(sys.executable, SUITE / "continuous.py", config)
    assert (result.returncode, result.stdout) == (2, "")
    assert "git could not compare HEAD with HEAD^" in result.stderr


def test_a_benchmark_that_fails_is_no_comparison(tmp_path: Path) -> None:
    assert compare(tmp_path, [PACE, {**PACE, "SCAN": "none"}])[0] == 2


def test_a_loss_can_be_accepted(tmp_path: Path) -> None:
    found = compare(tmp_path, [PACE, SLOW_EXPANSION], Expansion="keys are checked twice")
    assert found == (0, EXPANSIONS, EXPANSIONS)


def test_asvs_own_page_lists_a_slower_scan_and_no_greater_speed_up(tmp_path: Path) -> None:
    after = {**SLOW_SCAN, "LOOP": 2.0}
    repository = make_history(tmp_path, [PACE, PACE, PACE, after, after, after])
    repository.asv("machine", "--yes")
    bench = r"--bench=scan\.(Scan\..*'2 x 3|Speedup)"
    repository.asv("run", "ALL", "--launch-method=forkserver", bench)
    repository.asv("publish")
    page = json.loads((repository.html / "regressions.json").read_text())
    assert {regression[0] for regression in page["regressions"]} == SCANS
    (graph,) = (repository.html / "graphs").glob("arch-*/**/scan.Speedup*.json")
    speedups = [values[0] for _, values in json.loads(graph.read_text())]
    assert speedups[-1] > 1.5 * speedups[0]
