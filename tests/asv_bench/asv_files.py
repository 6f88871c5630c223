"""Result files as asv writes them, and small repositories."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from asv.results import Results  # type: ignore[import-untyped]
from asv.runner import BenchmarkResult  # type: ignore[import-untyped]

from dashboard_results import Suite

SPEEDUP = "scan.Speedup.track_speedup_over_single_loop"
SUITE: Suite = {
    "a.track": {"name": "a.track", "version": "1", "params": [["2", "4"]], "param_names": ["q"]},
    "b.track": {"name": "b.track", "version": "1", "params": [], "param_names": []},
}


IDENTITY = {
    f"GIT_{role}_{fact}": value
    for role in ("AUTHOR", "COMMITTER")
    for fact, value in (("NAME", "nobody"), ("EMAIL", "nobody@localhost"))
}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    environment = {**os.environ, **IDENTITY}
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def make_commits(folder: Path, count: int) -> list[str]:
    """A repository of empty commits. Gives their hashes, oldest first."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    for number in range(count):
        git(folder, "commit", "--quiet", "--allow-empty", "--message", f"commit {number}")
    return git(folder, "rev-list", "--reverse", "HEAD").split()


def make_results(
    folder: Path,
    machine: str,
    commit: str,
    values: Mapping[str, Sequence[float | None]],
    suite: Suite = SUITE,
    ran: bool = True,
) -> Path:
    """A result file of benchmarks' values, the machine's own file, the suite's. Gives the folder.

    None stands for what failed, NaN for what does not apply; a commit that was not built ran none.
    """
    facts = {"machine": machine, "python": "3.11"}
    results = Results(facts, {}, commit, 1000, "3.11", "environment", {})
    for name, figures in values.items():
        nothing = [None] * len(figures)
        result = BenchmarkResult(list(figures), nothing, nothing, 0, "", None)
        results.add_result(suite[name], result, duration=1.0 if ran else None)
    results.save(str(folder))
    (folder / machine / "machine.json").write_text(json.dumps({"machine": machine, "version": 1}))
    (folder / "benchmarks.json").write_text(json.dumps(suite | {"version": 2}))
    return folder
