"""The regression gate: whether a commit is slower or asks for more than its parent.

    python tools/gate.py                                  HEAD against HEAD^
    python tools/gate.py --json                           the same, for programs
    python tools/gate.py --base HEAD --only ratios        how much ratios differ by themselves

Runs `asv continuous` over the two commits and judges by the table in tools/gate_rules.py. Counts
fail where they exceed their margins. Ratios are measured by turns, in processes over the one
commit's package and the other's; one that exceeds its margin is measured once more before it fails.
A line `Gate-Accept: PATTERN REASON` in a commit message accepts what is worse on purpose.

Exit codes: 0 nothing is worse; 1 something is, or a benchmark broke; 2 asv could not measure, or
the command line or a Gate-Accept line is wrong; 3 there is nothing to compare with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import gate_asv
import gate_commits
import gate_report
from gate_rules import RULES, Outcome, Pair, Verdict, find_rule, judge_count, judge_ratios

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, REPEAT_ROUNDS = 3, 5

PASSED, REGRESSED, NOT_MEASURED, NOTHING_TO_COMPARE = range(4)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    config: Path
    folder: Path
    base: str
    head: str
    only: str | None
    rounds: int
    json: bool


def parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    suite = ROOT / "asv_bench" / "asv.conf.json"
    parser.add_argument("--config", type=Path, default=suite, help="asv's configuration")
    folder = ROOT / "build" / "gate"
    parser.add_argument("--folder", type=Path, default=folder, help="for asv's own files")
    parser.add_argument("--base", default="HEAD^", help="compared with this commit (HEAD^)")
    parser.add_argument("--head", default="HEAD", help="the commit that is judged (HEAD)")
    parser.add_argument("--only", choices=("counts", "ratios"), help="leave the others out")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of the ratios ({ROUNDS})")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {options.rounds}")
    if not options.config.is_file():
        parser.error(f"--config must be a file: {options.config}")
    return Options(**vars(options))


def compare(options: Options, progress: Progress) -> gate_report.Report:
    """Measure and judge both commits."""
    config = options.config.resolve()
    repository = Path(gate_commits.git(config.parent, "rev-parse", "--show-toplevel"))
    base, head = gate_commits.find_commits(repository, options.base, options.head)
    acceptances = gate_commits.find_acceptances(repository, base, head)
    workspace = gate_asv.Workspace.prepare(config, options.folder.resolve(), repository)
    builds = gate_asv.Builds(workspace)
    notes = []
    if gate_commits.uncommitted(repository):
        notes.append("Tracked files differ from HEAD. The benchmarks are those of the files.")

    verdicts: list[Verdict] = []
    if options.only == "ratios":
        builds.discover(head)
    else:
        verdicts += judge_counts(workspace, base, head, progress)
    if options.only != "counts":
        if gate_commits.differ_in_docs_only(repository, base, head):
            notes.append("The commits differ in documents only. Ratios were not measured.")
        else:
            instruction_set, ratios = judge_all_ratios(
                workspace, builds, base, head, options.rounds, progress
            )
            verdicts += ratios
            notes.append(
                f"Ratios are on the instruction set {instruction_set or 'of the package'}."
            )
    lost = builds.lost(base)
    if lost is None:
        notes.append("The parent's own suite cannot be read. What it had more is not known.")
    verdicts += [Verdict(name, "runs", None, None, None, 0, Outcome.LOST) for name in lost or ()]
    verdicts = gate_commits.accept(verdicts, acceptances)
    notes += [
        f"{gate_commits.ACCEPT} {acceptance.pattern} accepts nothing: nothing it names is worse."
        for acceptance in gate_commits.unused(verdicts, acceptances)
    ]
    return gate_report.Report(base, head, tuple(verdicts), tuple(notes))


def is_ratio(name: str) -> bool:
    rule = find_rule(name)
    return rule is not None and rule.kind == "ratio"


def judge_counts(
    workspace: gate_asv.Workspace, base: str, head: str, progress: Progress
) -> list[Verdict]:
    """All but the ratios, by `asv continuous`."""
    task = progress.add_task("asv continuous: builds, counts", total=100)
    ratios = "|".join(rule.pattern for rule in RULES if rule.kind == "ratio")
    gate_asv.run_continuous(
        *(workspace, base, head, f"^(?!(?:{ratios})$)"),
        lambda done: progress.update(task, completed=done),
    )
    progress.update(task, completed=100)
    before, after = (gate_asv.read_values(workspace, commit) for commit in (base, head))
    return [
        # Not there is the same as failed: asv had the same names to run on both.
        judge_count(name, find_rule(name), before.get(name), after.get(name))
        for name in gate_asv.suite_names(workspace)
        if not is_ratio(name)
    ]


def judge_all_ratios(
    workspace: gate_asv.Workspace,
    builds: gate_asv.Builds,
    base: str,
    head: str,
    rounds: int,
    progress: Progress,
) -> tuple[str | None, list[Verdict]]:
    """The instruction set, and the verdicts on it."""
    for commit in (base, head):
        builds.install(commit)
    names = [name for name in gate_asv.suite_names(workspace) if is_ratio(name)]
    task = progress.add_task("ratios, by turns")
    with builds.interleaved(base, head, lambda: progress.advance(task)) as (
        instruction_set,
        measure,
    ):

        def measure_and_show(chosen: Sequence[str], count: int) -> Mapping[str, Sequence[Pair]]:
            progress.update(task, completed=0, total=2 * count * len(chosen))
            return measure(chosen, count)

        return instruction_set, judge_ratios(names, measure_and_show, rounds, REPEAT_ROUNDS)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    messages = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=messages) as progress:
            report = compare(options, progress)
    except gate_commits.NothingToCompareError as error:
        messages.print(f"gate: {error}", markup=False)
        return NOTHING_TO_COMPARE
    except (gate_commits.AcceptanceError, gate_asv.MeasurementError) as error:
        messages.print(f"gate: {error}", markup=False)
        return NOT_MEASURED
    except Exception:
        # Python's own exit code would say that something is worse.
        messages.print_exception()
        return NOT_MEASURED
    if options.json:
        print(gate_report.as_json(report))
    else:
        gate_report.print_tables(report)
    return REGRESSED if report.failures else PASSED


if __name__ == "__main__":
    sys.exit(main())
