"""The regression gate over real commits, built and measured by asv; and the real suite."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gate_repository import HOST, SCAN, TinyRepository
from gate_rules import RULES, find_rule

ROOT = Path(__file__).resolve().parents[2]
GATE = ROOT / "tools" / "gate.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("asv") is None, reason="needs asv"),
]

READ = "scan.Answer.track_ratio_to_read('1 x 1', 1)"
LAUNCHES = "host.Calls.track_launches_a_call({})"
# Hashes all data once more, which makes two passes three.
SLOW_PASSES = 3


@dataclass(frozen=True)
class Result:
    """What the gate said."""

    status: int
    content: dict[str, Any]
    log: str

    def outcomes(self) -> dict[str, str]:
        return {row["benchmark"]: row["outcome"] for row in self.content["verdicts"]}

    def failures(self) -> set[str]:
        return {row["benchmark"] for row in self.content["verdicts"] if row["fails"]}

    def row(self, benchmark: str) -> dict[str, Any]:
        (row,) = (row for row in self.content["verdicts"] if row["benchmark"] == benchmark)
        assert isinstance(row, dict)
        return row


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """asv's environment, for all tests."""
    return tmp_path_factory.mktemp("gate")


@pytest.fixture
def repository(workspace: Path) -> TinyRepository:
    """Always at the same place, so that asv takes its environment again."""
    folder = workspace / "repository"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    return TinyRepository(folder)


def run_gate(repository: TinyRepository, *options: str) -> Result:
    config = repository.folder / "asv.conf.json"
    folder = repository.folder.parent / "work"
    command = [sys.executable, str(GATE), "--json", "--config", str(config)]
    result = subprocess.run(
        [*command, "--folder", str(folder), *options], capture_output=True, text=True, check=False
    )
    assert result.returncode in (0, 1), result.stderr
    return Result(result.returncode, json.loads(result.stdout), result.stderr)


def test_two_commits_of_the_same_code_are_not_told_apart(repository: TinyRepository) -> None:
    repository.commit("First")
    repository.commit("Second", more="# a comment")
    result = run_gate(repository)
    assert (result.status, result.failures()) == (0, set())
    outcomes = result.outcomes()
    assert outcomes[READ] == "same"
    assert outcomes[LAUNCHES.format(2)] == "same"
    assert result.row(READ)["before"] == pytest.approx(2, rel=0.2)
    assert result.row(LAUNCHES.format(2))["after"] == 2


def test_how_much_ratios_differ_by_themselves_is_measured(repository: TinyRepository) -> None:
    repository.commit("First")
    result = run_gate(repository, "--base", "HEAD", "--only", "ratios")
    assert result.status == 0
    assert result.outcomes()[READ] == "same"
    assert LAUNCHES.format(1) not in result.outcomes()


def test_a_slow_down_is_caught(repository: TinyRepository) -> None:
    """A ratio that is worse, after a repeat, and a count that is."""
    repository.commit("First")
    repository.commit("Second", passes=SLOW_PASSES, launches=2)
    result = run_gate(repository)
    assert result.status == 1
    assert result.failures() == {READ, LAUNCHES.format(1), LAUNCHES.format(2)}
    assert result.row(READ)["change"] == pytest.approx(0.5, abs=0.2)
    assert result.row(READ)["note"].startswith("repeated: +")
    assert result.row(LAUNCHES.format(1))["change"] == pytest.approx(1)


def test_an_accepted_slow_down_passes_and_is_named(repository: TinyRepository) -> None:
    repository.commit("First")
    message = "Second\n\nGate-Accept: track_ratio_to_read twice is safer\nGate-Accept: launches too"
    repository.commit(message, passes=SLOW_PASSES, launches=2)
    result = run_gate(repository)
    assert (result.status, result.failures()) == (0, set())
    assert result.outcomes()[READ] == "accepted"
    assert result.row(READ)["note"] == "twice is safer"
    assert result.row(LAUNCHES.format(1))["note"] == "too"


def test_a_benchmark_that_breaks_fails_and_one_that_is_new_or_lost_is_named(
    repository: TinyRepository,
) -> None:
    more = HOST.replace("[1, 2]", "[1, 2, 3]") + "\n\ndef track_gone():\n    return 1\n"
    repository.commit("First", host=more)
    removed = "del answer, launch\nanswer = launch = None"
    repository.commit(
        "Second",
        host=HOST,
        scan=SCAN.replace("without_a_rule", "renamed"),
        more=f"def blocks_kept(queries):\n    return queries\n{removed}",
    )
    result = run_gate(repository)
    assert result.status == 1
    assert result.failures() == {
        READ,
        *(LAUNCHES.format(queries) for queries in (1, 2)),
        "host.time_answer",
        "scan.Answer.track_ratio_renamed('1 x 1', 1)",
    }
    outcomes = result.outcomes()
    assert outcomes[READ] == outcomes["host.time_answer"] == "broken"
    assert outcomes["host.Calls.track_blocks_kept(1)"] == "new"
    assert outcomes["host.track_gone"] == "lost"
    assert outcomes["scan.Answer.track_ratio_without_a_rule"] == "lost"
    assert outcomes["host.Calls.track_launches_a_call(3)"] == "lost"


# The suite of the project


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """All names of the suite's tracks, with their parameters, as asv finds them."""
    import gate_asv

    found = tmp_path_factory.mktemp("suite") / "found.json"
    script = Path(gate_asv.asv.runner.BENCHMARK_RUN_SCRIPT)
    suite = ROOT / "asv_bench" / "benchmarks"
    subprocess.run([sys.executable, script, "discover", str(suite), str(found)], check=True)
    benchmarks = json.loads(found.read_text(encoding="utf-8"))
    return {
        name
        for benchmark in benchmarks
        if benchmark["type"] == "track"
        for name in gate_asv.full_names(benchmark)
    }


def test_each_rule_is_about_something(tracked: set[str]) -> None:
    for rule in RULES:
        assert any(re.fullmatch(rule.pattern, name) for name in tracked), rule.pattern


# Times, and ratios that differ more from run to run than a regression would.
WITHOUT_A_RULE = re.compile(
    r"gpu\..*|expansion\..*|naive\..*|scan\.(NaiveNumpy|PageSize)\..*|planning\.Pack\.track_plan_.*"
    r"|host\.HostTime\..*|scan\.(Answer|Speedup)\..*(, 2\)|\((16|'(4|16|32) x 3'), 1\))"
)


def test_no_track_is_forgotten(tracked: set[str]) -> None:
    """A new track needs a rule, or its name here."""
    without = {name for name in tracked if find_rule(name) is None}
    assert {name for name in without if not WITHOUT_A_RULE.fullmatch(name)} == set()
    assert without != set()
