"""asv's result files: what a commit has, those of other hosts, the newest figures."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from asv.results import Results, iter_results  # type: ignore[import-untyped]

MACHINE = "machine.json"
SUITE = "benchmarks.json"

Suite = dict[str, dict[str, Any]]


class ResultsError(Exception):
    """A folder or a file that is not what asv writes."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit and its first line."""

    hash: str
    subject: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the benchmarks gave on one commit, in benchmarks.

    Attributes
    ----------
    hash, subject : str
    state : str
        ``measured``, ``not built``, ``failed`` (built, but no benchmark ran) or ``no results``.
    measured, inapplicable, failed : int
        Benchmarks with figures, with n/a alone, and with none.
    """

    hash: str
    subject: str
    state: str
    measured: int
    inapplicable: int
    failed: int

    @classmethod
    def of(cls, commit: Commit, results: Sequence[Results], suite: Suite) -> Outcome:
        """Read it from the commit's result files on one machine."""
        measured = inapplicable = failed = 0
        ran = False
        for result in results:
            for name in result.get_result_keys(suite):
                ran = ran or result.duration.get(name) is not None
                values = result.get_result_value(name, suite[name]["params"])
                # asv writes null for what failed, and NaN for what does not apply.
                known = [value for value in values if value is not None]
                measured += any(map(isfinite, known))
                inapplicable += bool(known) and not any(map(isfinite, known))
                failed += not known
        if not results:
            state = "no results"
        elif not ran:
            state = "not built"
        else:
            state = "measured" if measured or inapplicable else "failed"
        return cls(commit.hash, commit.subject, state, measured, inapplicable, failed)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: expected a JSON file of asv: {error}") from None
    if not isinstance(content, dict):
        raise ResultsError(f"{path}: expected a JSON object, not {type(content).__name__}")
    return content


def read_suite(folder: Path) -> Suite:
    """The benchmarks that a folder of results tells of; none where it has no such file."""
    path = folder / SUITE
    if not path.exists():
        return {}
    return {name: entry for name, entry in read_json(path).items() if isinstance(entry, dict)}


def machine_folders(folder: Path) -> list[Path]:
    """The folders of machines in asv's folder of results, or the folder itself if it is one."""
    if (folder / MACHINE).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{MACHINE}"))


def check_results(folder: Path) -> None:
    """Refuse a folder without result files, or with spoiled ones."""
    machines = machine_folders(folder)
    if not machines:
        raise ResultsError(
            f"{folder}: expected asv's results (a folder with {MACHINE} for each machine), "
            f"not {'an empty or other folder' if folder.is_dir() else 'a missing one'}"
        )
    for path in machines:
        name = read_json(path / MACHINE).get("machine")
        for file in result_files(path):
            content = read_json(file)
            if not {"commit_hash", "results", "params"} <= content.keys():
                raise ResultsError(f"{file}: expected a result file of asv")
            if content["params"].get("machine") != name:
                raise ResultsError(
                    f"{file}: expected results of machine {name!r}, "
                    f"not of {content['params'].get('machine')!r}"
                )


def result_files(machine: Path) -> list[Path]:
    """A machine's result files, one a commit and environment."""
    return sorted(path for path in machine.glob("*.json") if path.name not in (MACHINE, SUITE))


def merge(sources: Sequence[Path], target: Path) -> None:
    """Gather folders of results in a new one.

    The first source that knows a benchmark says what it is; of two files for the same machine,
    commit and environment, that of the later source is taken.
    """
    target.mkdir(parents=True)
    version: dict[str, Any] = {}
    suite: Suite = {}
    for source in sources:
        for machine in machine_folders(source):
            name = read_json(machine / MACHINE)["machine"]
            (target / name).mkdir(exist_ok=True)
            for file in (machine / MACHINE, *result_files(machine)):
                shutil.copyfile(file, target / name / file.name)
        for folder in (source, source.parent):  # beside the folder of a single machine
            content = read_json(folder / SUITE) if (folder / SUITE).exists() else {}
            version = version or {"version": content["version"]} if content else version
            suite = read_suite(folder) | suite
    (target / SUITE).write_text(json.dumps(suite | version, indent=1) + "\n", encoding="utf-8")


def unshown(folder: Path, branch: frozenset[str]) -> Iterator[str]:
    """What of merged results asv leaves out of its site without a word."""
    suite = read_suite(folder)
    for result in iter_results(str(folder)):
        place = f"{result.params['machine']}, commit {result.commit_hash[:8]}"
        if result.commit_hash not in branch:
            yield f"{place}: not a commit of this branch"
            continue
        names = set(result.get_all_result_keys())
        stale = sorted((names & suite.keys()) - result.get_result_keys(suite))
        gone = sorted(names - suite.keys())
        if stale:
            yield f"{place}: measured by another version of the benchmark: {', '.join(stale)}"
        if gone:
            yield f"{place}: the suite no longer has {', '.join(gone)}"


@dataclass(frozen=True, slots=True)
class Series:
    """One figure of one machine over the commits, oldest first.

    Attributes
    ----------
    machine, benchmark : str
    params : tuple of (str, str)
        Names and values of the benchmark's parameters, as asv writes them.
    points : tuple of (str, float)
        Commit hashes and figures.
    """

    machine: str
    benchmark: str
    params: tuple[tuple[str, str], ...]
    points: tuple[tuple[str, float], ...]


def read_series(folder: Path, benchmark: str, commits: Sequence[str]) -> list[Series]:
    """The series of a benchmark, in the order of its parameters. Commits are oldest first."""
    entry = read_suite(folder).get(benchmark)
    if entry is None:
        return []
    suite = {benchmark: entry}
    combinations = list(itertools.product(*entry["params"]))
    age = {name: place for place, name in enumerate(commits)}
    points: dict[tuple[str, int], list[tuple[str, float]]] = defaultdict(list)
    found = [result for result in iter_results(str(folder)) if result.commit_hash in age]
    for result in sorted(found, key=lambda result: age[result.commit_hash]):
        if benchmark not in result.get_result_keys(suite):
            continue
        values = result.get_result_value(benchmark, entry["params"])
        for number, value in enumerate(values):
            if value is not None and isfinite(value):
                points[result.params["machine"], number].append((result.commit_hash, value))
    return [
        Series(
            machine,
            benchmark,
            tuple(zip(entry["param_names"], combinations[number], strict=True)),
            tuple(values),
        )
        for (machine, number), values in sorted(points.items())
    ]
