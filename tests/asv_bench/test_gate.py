"""How the regression gate judges: counts by their margins, ratios by turns and with one repeat."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Sequence
from math import nan
from pathlib import Path

import pytest

pytest.importorskip("asv", reason="needs asv: the extra bench")

import gate
import gate_commits
import gate_report
from gate_commits import Acceptance
from gate_rules import (
    RULES,
    Outcome,
    Pair,
    Rule,
    Value,
    Verdict,
    find_rule,
    judge_count,
    judge_pairs,
    judge_ratios,
)

LAUNCHES = Rule("launches", "count", 0)
INSTRUCTIONS = Rule("instructions", "count", 0.02, required=True)
BLOCKS = Rule("blocks", "count", 0, slack=20)
READ = Rule("read", "ratio", 0.10)
SPEEDUP = Rule("speedup", "ratio", 0.10, better="higher")


def outcome(rule: Rule | None, before: Value, after: Value) -> Outcome:
    return judge_count("x", rule, before, after).outcome


# Counts


@pytest.mark.parametrize(
    ("rule", "before", "after", "expected"),
    [
        (LAUNCHES, 4, 4, Outcome.SAME),
        (LAUNCHES, 4, 5, Outcome.WORSE),
        (LAUNCHES, 4, 3, Outcome.BETTER),
        (LAUNCHES, 0, 1, Outcome.WORSE),
        (INSTRUCTIONS, 1000, 1020, Outcome.SAME),
        (INSTRUCTIONS, 1000, 1021, Outcome.WORSE),
        (INSTRUCTIONS, 1000, 979, Outcome.BETTER),
        (BLOCKS, 0, 20, Outcome.SAME),
        (BLOCKS, 0, 21, Outcome.WORSE),
        (BLOCKS, -3, 18, Outcome.WORSE),
        (SPEEDUP, 6.0, 5.5, Outcome.SAME),
        (SPEEDUP, 6.0, 5.3, Outcome.WORSE),
    ],
)
def test_a_count_fails_beyond_its_margin(
    rule: Rule, before: float, after: float, expected: Outcome
) -> None:
    verdict = judge_count("x", rule, before, after)
    assert verdict.outcome is expected
    assert verdict.fails == (expected is Outcome.WORSE)


def test_values_that_differ_by_rounding_are_the_same() -> None:
    assert outcome(LAUNCHES, 0.1 + 0.2, 0.3) is Outcome.SAME
    assert outcome(LAUNCHES, 0.3, 0.1 + 0.2) is Outcome.SAME


@pytest.mark.parametrize("rule", [None, LAUNCHES, INSTRUCTIONS])
@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (1.0, None, Outcome.BROKEN),
        (nan, None, Outcome.BROKEN),
        (None, None, Outcome.BROKEN_BEFORE),
        (None, 1.0, Outcome.NEW),
        (nan, 1.0, Outcome.NEW),
        (1.0, nan, Outcome.UNMEASURED),
    ],
)
def test_what_has_no_number(
    rule: Rule | None, before: Value, after: Value, expected: Outcome
) -> None:
    verdict = judge_count("x", rule, before, after)
    assert verdict.outcome is expected
    assert verdict.fails == (expected is not Outcome.NEW)


def test_what_the_gate_must_measure_may_not_be_missing_on_both_sides() -> None:
    assert outcome(None, nan, nan) is Outcome.ABSENT
    assert outcome(LAUNCHES, nan, nan) is Outcome.ABSENT
    assert judge_count("x", INSTRUCTIONS, nan, nan).fails


def test_what_has_no_rule_must_only_run() -> None:
    assert outcome(None, 1.0, 100.0) is Outcome.SAME


# Ratios


def test_a_ratio_is_judged_by_the_median_change_of_its_rounds() -> None:
    """What slows both commits of a round down, or one round alone, does not count."""
    quiet: list[Pair] = [(1.0, 1.01), (1.5, 1.5), (1.0, 1.4)]
    verdict = judge_pairs("read", READ, quiet)
    assert verdict.outcome is Outcome.SAME
    assert verdict.change == pytest.approx(0.01)
    slow: list[Pair] = [(1.0, 1.2), (1.5, 1.8), (1.0, 1.0)]
    assert judge_pairs("read", READ, slow).outcome is Outcome.WORSE


def test_of_a_speed_up_less_is_worse() -> None:
    assert judge_pairs("speedup", SPEEDUP, [(6.0, 5.5)]).outcome is Outcome.SAME
    assert judge_pairs("speedup", SPEEDUP, [(6.0, 5.4)]).outcome is Outcome.WORSE
    assert judge_pairs("speedup", SPEEDUP, [(6.0, 6.7)]).outcome is Outcome.BETTER


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(1.0, 1.0), (1.0, None), (1.0, 1.0)], Outcome.BROKEN),
        ([(None, 1.0), (1.0, 1.0)], Outcome.NEW),
        ([(1.0, 1.0), (1.0, nan)], Outcome.UNMEASURED),
    ],
)
def test_one_round_without_a_number_is_as_bad_as_all(
    pairs: Sequence[Pair], expected: Outcome
) -> None:
    assert judge_pairs("read", READ, pairs).outcome is expected


class Machine:
    """Gives what a test planned, and remembers what it was asked for."""

    def __init__(self, *measurements: dict[str, list[Pair]]) -> None:
        self.measurements = list(measurements)
        self.asked: list[tuple[list[str], int]] = []

    def __call__(self, names: Sequence[str], rounds: int) -> dict[str, list[Pair]]:
        self.asked.append((list(names), rounds))
        return self.measurements.pop(0)


GOOD: list[Pair] = [(1.0, 1.0)]
BAD: list[Pair] = [(1.0, 1.3)]


def test_what_is_not_worse_is_not_repeated() -> None:
    machine = Machine({"read": GOOD})
    (verdict,) = judge_ratios(["read"], machine, 3, 5, [READ])
    assert not verdict.fails
    assert machine.asked == [(["read"], 3)]


def test_a_repeat_rescues_an_outlier() -> None:
    machine = Machine({"read": BAD, "speedup": GOOD}, {"read": GOOD})
    read, speedup = judge_ratios(["read", "speedup"], machine, 3, 5, [READ, SPEEDUP])
    assert not read.fails
    assert read.note == "repeated: +30.0% at first"
    assert speedup.note == ""
    assert machine.asked == [(["read", "speedup"], 3), (["read"], 5)]


def test_what_is_worse_twice_fails() -> None:
    (verdict,) = judge_ratios(["read"], Machine({"read": BAD}, {"read": BAD}), 3, 5, [READ])
    assert verdict.fails
    assert verdict.change == pytest.approx(0.3)


def test_it_is_repeated_once_only() -> None:
    machine = Machine({"read": BAD}, {"read": BAD}, {"read": GOOD})
    judge_ratios(["read"], machine, 3, 5, [READ])
    assert len(machine.asked) == 2


# The table


def test_each_rule_has_a_margin_that_means_something() -> None:
    for rule in RULES:
        assert 0 <= rule.margin <= 0.15, rule.pattern
        assert re.compile(rule.pattern)


def test_the_first_rule_that_matches_the_whole_name_holds() -> None:
    rules = [Rule(r"a\.track_b\(1\)", "count", 0), Rule(r"a\.track_b\(.*\)", "count", 0.5)]
    assert find_rule("a.track_b(1)", rules) is rules[0]
    assert find_rule("a.track_b(2)", rules) is rules[1]
    assert find_rule("a.track_b", rules) is None


# What is accepted


def worse(benchmark: str, outcome: Outcome = Outcome.WORSE) -> Verdict:
    return Verdict(benchmark, "count", 1.0, 2.0, 1.0, 0.0, outcome)


def test_an_accepted_change_passes_and_is_named() -> None:
    acceptances = [Acceptance(r"host\..*launches", "graphs need a second launch")]
    first, second = gate_commits.accept(
        [worse("host.Calls.track_launches(1)"), worse("scan.x")], acceptances
    )
    assert first.outcome is Outcome.ACCEPTED
    assert first.note == "graphs need a second launch"
    assert not first.fails
    assert second.fails
    assert gate_commits.unused([first, second], acceptances) == []


@pytest.mark.parametrize("outcome", [Outcome.BROKEN, Outcome.UNMEASURED, Outcome.SAME])
def test_only_what_is_worse_can_be_accepted(outcome: Outcome) -> None:
    acceptances = [Acceptance(".", "everything")]
    (verdict,) = gate_commits.accept([worse("x", outcome)], acceptances)
    assert verdict.outcome is outcome
    assert gate_commits.unused([verdict], acceptances) == acceptances


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    gate_commits.git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for name, value in (("user.name", "nobody"), ("user.email", "nobody@localhost")):
        gate_commits.git(tmp_path, "config", name, value)
    return tmp_path


def commit(repository: Path, message: str, **files: str) -> str:
    for name, content in files.items():
        path = repository / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    gate_commits.git(repository, "add", "--all")
    gate_commits.git(repository, "commit", "--quiet", "--allow-empty", "--message", message)
    return gate_commits.git(repository, "rev-parse", "HEAD")


def test_acceptances_stand_in_the_messages_of_what_is_compared(repository: Path) -> None:
    commit(repository, "First\n\nGate-Accept: old of no concern")
    base = commit(repository, "Second")
    commit(repository, "Third\n\nGate-Accept: Scan\\..*instructions checks every key twice")
    head = commit(repository, "Fourth\n\nText.\nGate-Accept: launches  a graph")
    assert gate_commits.find_acceptances(repository, base, head) == [
        Acceptance("launches", "a graph"),
        Acceptance(r"Scan\..*instructions", "checks every key twice"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Gate-Accept: launches", "expected Gate-Accept: PATTERN REASON"),
        ("Gate-Accept:", "expected Gate-Accept: PATTERN REASON"),
        ("Gate-Accept: ( because", "no regular expression"),
    ],
)
def test_an_acceptance_that_says_nothing_is_an_error(
    line: str, reason: str, repository: Path
) -> None:
    base = commit(repository, "First")
    head = commit(repository, f"Second\n\n{line}")
    with pytest.raises(gate_commits.AcceptanceError, match=reason):
        gate_commits.find_acceptances(repository, base, head)


# The commits


def run_gate(
    repository: Path, *options: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    config = repository / "asv.conf.json"
    folder = repository / "build"
    status = gate.main(["--config", str(config), "--folder", str(folder), *options])
    return status, " ".join(capsys.readouterr().err.split())


def test_a_first_commit_has_nothing_to_compare_with(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(repository, "First", asv_conf_json="{}")
    status, said = run_gate(repository, capsys=capsys)
    assert status == gate.NOTHING_TO_COMPARE == 3
    assert "no commit HEAD^. this repository has no such commit" in said


def test_a_shallow_clone_has_nothing_to_compare_with(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(repository, "First")
    commit(repository, "Second", asv_conf_json="{}")
    clone = tmp_path_factory.mktemp("clone")
    url = f"file://{repository}"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", url, str(clone)], check=True)
    status, said = run_gate(clone, capsys=capsys)
    assert status == gate.NOTHING_TO_COMPARE
    assert "this clone is shallow: fetch its history" in said


def test_a_wrong_acceptance_stops_before_anything_is_built(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(repository, "First", asv_conf_json="{}")
    commit(repository, "Second\n\nGate-Accept: everything")
    status, said = run_gate(repository, capsys=capsys)
    assert status == gate.NOT_MEASURED == 2
    assert "expected Gate-Accept: PATTERN REASON" in said
    assert not (repository / "build").exists()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README_md": "x", "docs__plot_svg": "x"}, True),
        ({"README_md": "x", "code_py": "x"}, False),
        ({"docs__conf_json": "x"}, False),
        ({"CMakeLists_txt": "x"}, False),
        ({}, False),
    ],
)
def test_only_what_is_known_to_be_prose_is_not_measured(
    files: dict[str, str], expected: bool, repository: Path
) -> None:
    base = commit(repository, "First")
    head = commit(repository, "Second", **files)
    assert gate_commits.differ_in_docs_only(repository, base, head) is expected


def test_a_renamed_source_is_no_prose(repository: Path) -> None:
    base = commit(repository, "First", code_py="x = 1\n" * 20)
    gate_commits.git(repository, "mv", "code.py", "code.md")
    head = commit(repository, "Second")
    assert not gate_commits.differ_in_docs_only(repository, base, head)


# The report


def report(*verdicts: Verdict) -> gate_report.Report:
    return gate_report.Report("a" * 40, "b" * 40, verdicts, ("A note.",))


def test_the_report_shows_what_moved_and_all_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    same = [judge_count(f"host.same_{n}", LAUNCHES, 1, 1) for n in range(3)]
    ratio = judge_pairs("scan.read", READ, [(1.1, 1.12)])
    lost = Verdict("scan.gone", "runs", None, None, None, 0, Outcome.LOST)
    gate_report.print_tables(
        report(*same, judge_count("host.launches", LAUNCHES, 1, 2), ratio, lost)
    )
    printed = capsys.readouterr().out
    assert "host.same" not in printed
    for shown in ("host.launches", "+100.00%", "WORSE", "scan.read", "+1.82%", "scan.gone", "LOST"):
        assert shown in printed
    assert "A note." in printed
    assert "counts: 3 same, 1 WORSE" in printed
    assert printed.endswith(f"gate: {'b' * 10} against {'a' * 10}: 1 FAILED\n")


def test_the_report_is_json_for_programs() -> None:
    sides = itertools.product((1.0, None, nan), repeat=2)
    verdicts = [judge_count(f"x{n}", LAUNCHES, *side) for n, side in enumerate(sides)]
    content = json.loads(gate_report.as_json(report(*verdicts)), parse_constant=pytest.fail)
    assert content["passed"] is False
    assert content["notes"] == ["A note."]
    rows = {row["benchmark"]: row for row in content["verdicts"]}
    assert rows["x0"]["outcome"] == "same"
    assert (rows["x1"]["after"], rows["x1"]["outcome"]) == (None, "broken")
    assert (rows["x2"]["after"], rows["x2"]["fails"]) == ("n/a", True)
