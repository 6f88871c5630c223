"""What the gate has asv do: build both commits, run the suite on both, read the results.

`asv continuous` measures all but the ratios: it runs one commit after the other. Ratios take turns:
a process over the one commit's package, a process over the other's, by the same parts of asv.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asv.environment  # type: ignore[import-untyped]
import asv.repo  # type: ignore[import-untyped]
import asv.results  # type: ignore[import-untyped]
import asv.runner  # type: ignore[import-untyped]
import asv.util  # type: ignore[import-untyped]
from asv.benchmarks import Benchmarks  # type: ignore[import-untyped]
from asv.config import Config  # type: ignore[import-untyped]
from asv.machine import MachineCollection  # type: ignore[import-untyped]

from gate_commits import export
from gate_rules import Pair, Value

# What --quick does, and `rounds`, which it leaves to asv's interleaving of commits.
ONCE = {"rounds": 1, "repeat": 1, "number": 1, "warmup_time": 0}
# Forked from a process with the suite imported: starting hundreds of interpreters takes minutes.
LAUNCH = "forkserver"
# What the suite heeds.
INSTRUCTION_SET = "MORPHOGEN_BENCH_INSTRUCTION_SET"
MOST_ROUNDS = "MORPHOGEN_BENCH_MOST_ROUNDS"


class MeasurementError(Exception):
    """asv could not measure what must be compared."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where asv's own files lie: none of them among the results that are kept.

    Attributes
    ----------
    folder : pathlib.Path
    repository : pathlib.Path
    benchmarks : pathlib.Path
        The suite, for both commits.
    """

    folder: Path
    repository: Path
    benchmarks: Path

    @classmethod
    def prepare(cls, config: Path, folder: Path, repository: Path) -> Workspace:
        """Derive a configuration from that of the suite."""
        settings = asv.util.load_json(str(config), js_comments=True)
        suite = (config.parent / settings.get("benchmark_dir", "benchmarks")).resolve()
        shutil.rmtree(folder / "results", ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        settings |= {
            "repo": str(repository),
            "branches": ["HEAD"],  # a clone of one commit may have no other
            "benchmark_dir": str(suite),
            "env_dir": str(folder / "env"),
            "results_dir": str(folder / "results"),
            "html_dir": str(folder / "html"),
        }
        (folder / "asv.conf.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
        return cls(folder, repository, suite)

    @property
    def config_file(self) -> Path:
        return self.folder / "asv.conf.json"

    @property
    def log_file(self) -> Path:
        return self.folder / "asv.log"

    def config(self) -> Config:
        return Config.load(str(self.config_file))


def run_continuous(
    workspace: Workspace, base: str, head: str, bench: str, progress: Callable[[float], None]
) -> None:
    """Run `asv continuous`, what it prints goes to a file.

    Parameters
    ----------
    bench : str
        A regular expression that the benchmarks match.
    progress : callable
        Told how far it is, 0 to 100.

    Raises
    ------
    MeasurementError
        If asv itself fails; a benchmark may.
    """
    command = [sys.executable, "-m", "asv", "--config", str(workspace.config_file)]
    if not Path(MachineCollection.get_machine_file_path()).exists():
        subprocess.run([*command, "machine", "--yes"], check=True, stdout=subprocess.DEVNULL)
    command += ["continuous", "--no-interleave-rounds", "--show-stderr", f"--bench={bench}"]
    command += [f"--launch-method={LAUNCH}"]
    command += [f"--attribute={name}={value}" for name, value in ONCE.items()]
    with workspace.log_file.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, base, head],
            cwd=workspace.folder,
            env={**os.environ, MOST_ROUNDS: "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            log.flush()
            if done := re.match(r"\[ *([\d.]+)%\]", line):
                progress(float(done[1]))
    # 1: asv's own comparison found something worse; 2: a benchmark failed. Both are judged here.
    if process.wait() not in (0, 1, 2):
        raise MeasurementError(f"asv failed, exit status {process.returncode}:\n{tail(workspace)}")


def tail(workspace: Workspace, lines: int = 30) -> str:
    """The last that asv said."""
    return "\n".join(workspace.log_file.read_text(encoding="utf-8").splitlines()[-lines:])


def full_names(benchmark: Mapping[str, Any]) -> list[str]:
    """The names of a benchmark for each combination of its parameters, in asv's order."""
    name: str = benchmark["name"]
    if not benchmark["params"]:
        return [name]
    return [f"{name}({', '.join(p)})" for p in itertools.product(*benchmark["params"])]


def suite_names(workspace: Workspace) -> list[str]:
    """All names of the suite that asv found last."""
    found = Benchmarks.load(workspace.config())
    return [name for benchmark in found.values() for name in full_names(benchmark)]


def read_values(workspace: Workspace, commit: str) -> dict[str, Value]:
    """The values that asv recorded for a commit.

    Raises
    ------
    MeasurementError
        If there are none, or the commit could not be built.
    """
    config = workspace.config()
    benchmarks = Benchmarks.load(config)
    results = [
        result
        for result in asv.results.iter_results(config.results_dir)
        if result.commit_hash == commit
    ]
    values: dict[str, Value] = {}
    for result in results:
        recorded = result.get_all_result_keys()
        for name, benchmark in benchmarks.items():
            if name in recorded:
                found = result.get_result_value(name, benchmark["params"])
                values |= zip(full_names(benchmark), found, strict=True)
    if not values or all(value is None for value in values.values()):
        raise MeasurementError(
            f"nothing could be measured at {commit[:10]}: see {workspace.log_file}\n"
            f"{tail(workspace)}"
        )
    return values


class Builds:
    """Both commits' packages, side by side over one set of dependencies.

    asv installs one commit at a time into its environment; what it installed is copied aside, and
    a process takes one or the other by its path.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._config = workspace.config()
        self._repository = asv.repo.get_repo(self._config)
        (self._environment,) = asv.environment.get_environments(self._config, None, verbose=False)
        self._folder = workspace.folder / "packages"

    def install(self, commit: str) -> None:
        """Install a commit, from the wheel that asv kept, and copy it aside."""
        self._environment.create()
        self._environment.install_project(self._config, self._repository, commit)
        package = Path(self._run(None, f"import {self.name}; print({self.name}.__path__[0])"))
        target = self._folder / commit
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(package, target / self.name)
        found = self._run(commit, f"import {self.name}; print({self.name}.__path__[0])")
        if Path(found) != target / self.name:
            raise MeasurementError(f"{self.name} of {commit[:10]} is loaded from {found}")

    @property
    def name(self) -> str:
        """Of the package, which is the project's, too."""
        return str(self._config.project)

    def discover(self, commit: str) -> None:
        """Let asv find the suite, as `run_continuous` does, without running any of it."""
        self._environment.create()
        Benchmarks.discover(self._config, self._repository, [self._environment], [commit]).save()

    def instruction_sets(self, commit: str) -> list[str]:
        """Those that a commit's package can use here, the best first; none if it has no choice."""
        code = f"from {self.name} import instruction_set as i; print(*i.supported())"
        try:
            return self._run(commit, code).split()
        except asv.util.ProcessError:
            return []

    def lost(self, commit: str) -> set[str]:
        """Names of a commit's own suite that the suite of today has no more."""
        with tempfile.TemporaryDirectory() as folder:
            export(self._workspace.repository, commit, Path(folder))
            config = self._workspace.config()
            suite = self._workspace.benchmarks.relative_to(self._workspace.repository)
            if not (Path(folder) / suite).is_dir():
                return set()
            config.benchmark_dir = str(Path(folder) / suite)
            found = Benchmarks.discover(config, self._repository, [self._environment], [commit])
            names = {name for benchmark in found.values() for name in full_names(benchmark)}
        return names - set(suite_names(self._workspace))

    @contextmanager
    def using(self, commit: str | None) -> Iterator[None]:
        """Let processes of asv's environment find a commit's package first."""
        # asv's own name for what becomes PYTHONPATH in them.
        if commit is not None:
            os.environ["ASV_PYTHONPATH"] = str(self._folder / commit)
        try:
            yield
        finally:
            os.environ.pop("ASV_PYTHONPATH", None)

    def _run(self, commit: str | None, code: str) -> str:
        with self.using(commit):
            printed: str = self._environment.run(["-c", code], cwd=str(self._workspace.folder))
        return printed.strip()

    @contextmanager
    def interleaved(
        self, base: str, head: str, instruction_set: str | None, progress: Callable[[], None]
    ) -> Iterator[Callable[[Sequence[str], int], dict[str, list[Pair]]]]:
        """What measures benchmarks of both commits by turns, a process each.

        Parameters
        ----------
        base, head : str
            Installed both.
        instruction_set : str or None
            For both, in the environment of the processes.
        progress : callable
            Called after each process.
        """
        spawner = asv.runner.get_spawner(
            self._environment, str(self._workspace.benchmarks), launch_method="spawn"
        )
        caches: dict[tuple[str, str], Path] = {}

        def set_up_cache(commit: str, benchmark: Mapping[str, Any]) -> Path | None:
            key = benchmark.get("setup_cache_key")
            if key is None:
                return None
            if (commit, key) not in caches:
                timeout = benchmark.get("setup_cache_timeout") or benchmark["timeout"]
                folder, error = spawner.create_setup_cache(benchmark["name"], timeout, "{}")
                if folder is None:
                    raise MeasurementError(f"setup_cache of {benchmark['name']} failed:\n{error}")
                caches[commit, key] = Path(folder)
            return caches[commit, key]

        def run_once(commit: str, name: str) -> Value:
            benchmarks = Benchmarks.load(self._config, regex=[f"^{re.escape(name)}$"])
            ((plain, benchmark),) = benchmarks.items()
            if benchmark.get("timeout") is None:
                benchmark["timeout"] = self._config.default_benchmark_timeout
            with self.using(commit):
                cache = set_up_cache(commit, benchmark)
                result = asv.runner.run_benchmark(
                    benchmark,
                    spawner,
                    profile=False,
                    selected_idx=benchmarks.benchmark_selection[plain],
                    cwd=str(cache) if cache else None,
                )
            progress()
            # Those that were not selected are NaN.
            (index,) = benchmarks.benchmark_selection[plain] or [0]
            value: Value = result.result[index]
            return value

        def measure(names: Sequence[str], rounds: int) -> dict[str, list[Pair]]:
            pairs: dict[str, list[Pair]] = {name: [] for name in names}
            for number in range(rounds):
                for name in names:
                    # Who begins alternates: what ran before shapes what runs next.
                    order = (base, head) if number % 2 == 0 else (head, base)
                    values = {turn: run_once(commit, name) for turn, commit in enumerate(order)}
                    first, second = values[0], values[1]
                    pairs[name].append((first, second) if number % 2 == 0 else (second, first))
            return pairs

        if instruction_set is not None:
            os.environ[INSTRUCTION_SET] = instruction_set
        try:
            yield measure
        finally:
            os.environ.pop(INSTRUCTION_SET, None)
            spawner.close()
            for cache in caches.values():
                shutil.rmtree(cache, ignore_errors=True)
