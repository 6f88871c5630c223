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
from gate_rules import Measure, Pair, Value

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
            env={**os.environ, MOST_ROUNDS: "1", "PYTHONUNBUFFERED": "1"},
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
    try:
        benchmarks = Benchmarks.load(config)
    except asv.util.UserError:
        raise MeasurementError(f"asv found no benchmarks:\n{tail(workspace)}") from None
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

    asv installs one commit at a time into its environment. What it installed is copied aside; later
    a link in its place shows one commit's copy or the other's to the processes that start then.
    (asv's own ASV_PYTHONPATH does not reach benchmarks: 0.6.6 takes it off the path again.)
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._config = workspace.config()
        self._repository = asv.repo.get_repo(self._config)
        (self._environment,) = asv.environment.get_environments(self._config, None, verbose=False)

    @property
    def name(self) -> str:
        """Of the package, which is the project's, too."""
        return str(self._config.project)

    def _copy(self, commit: str) -> Path:
        return self._workspace.folder / "packages" / commit / self.name

    def _where(self) -> Path:
        """Where processes find the package."""
        return Path(self._run(f"import {self.name}; print({self.name}.__path__[0])"))

    def _run(self, code: str) -> str:
        printed: str = self._environment.run(["-c", code], cwd=str(self._workspace.folder))
        return printed.strip()

    def install(self, commit: str) -> None:
        """Install a commit, from the wheel that asv kept, and copy it aside."""
        self._environment.create()
        self._environment.install_project(self._config, self._repository, commit)
        package = self._where()
        if package.is_symlink():
            raise MeasurementError(f"an earlier run was cut short: remove {self._workspace.folder}")
        shutil.rmtree(self._copy(commit), ignore_errors=True)
        shutil.copytree(package, self._copy(commit))

    @contextmanager
    def linked(self) -> Iterator[Callable[[str], None]]:
        """Put a link in the package's place. Gives what lets it point to a commit's copy."""
        place = self._where()
        installed = place.with_name(f"{place.name}.installed")
        place.rename(installed)

        def show(commit: str) -> None:
            place.unlink(missing_ok=True)
            place.symlink_to(self._copy(commit), target_is_directory=True)

        try:
            yield show
        finally:
            place.unlink(missing_ok=True)
            installed.rename(place)

    def discover(self, commit: str) -> None:
        """Let asv find the suite, as `run_continuous` does, without running any of it."""
        self._environment.create()
        Benchmarks.discover(self._config, self._repository, [self._environment], [commit]).save()

    def instruction_sets(self) -> list[str]:
        """Those that the package can use here, the best first; none if it has no choice."""
        try:
            return self._run(
                f"from {self.name} import instruction_set as i; print(*i.supported())"
            ).split()
        except asv.util.ProcessError:
            return []

    def lost(self, commit: str) -> list[str] | None:
        """What a commit's own suite has and the suite of today has no more.

        Names of benchmarks; with the parameters, where only some of those are gone. None where that
        suite cannot be read.
        """
        with tempfile.TemporaryDirectory() as folder:
            export(self._workspace.repository, commit, Path(folder))
            config = self._workspace.config()
            suite = self._workspace.benchmarks.relative_to(self._workspace.repository)
            if not (Path(folder) / suite).is_dir():
                return []
            config.benchmark_dir = str(Path(folder) / suite)
            try:
                found = Benchmarks.discover(config, self._repository, [self._environment], [commit])
            except asv.util.UserError:
                return None
        present = Benchmarks.load(config)
        return sorted(
            name
            for plain, benchmark in found.items()
            for name in (
                set(full_names(benchmark)) - set(full_names(present[plain]))
                if plain in present
                else [plain]
            )
        )

    @contextmanager
    def interleaved(
        self, base: str, head: str, progress: Callable[[], None]
    ) -> Iterator[tuple[str | None, Measure]]:
        """What measures benchmarks of both commits by turns, a process each.

        Parameters
        ----------
        base, head : str
            Installed both.
        progress : callable
            Called after each process.

        Yields
        ------
        tuple of (str or None, callable)
            The best instruction set that both commits have, which the processes are told to use.
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

        with self.linked() as show:

            def run_once(commit: str, name: str) -> Value:
                benchmarks = Benchmarks.load(self._config, regex=[f"^{re.escape(name)}$"])
                ((plain, benchmark),) = benchmarks.items()
                if benchmark.get("timeout") is None:
                    benchmark["timeout"] = self._config.default_benchmark_timeout
                show(commit)
                cache = set_up_cache(commit, benchmark)
                selected = benchmarks.benchmark_selection[plain]
                result = asv.runner.run_benchmark(
                    *(benchmark, spawner),
                    profile=False,
                    selected_idx=selected,
                    cwd=str(cache) if cache else None,
                )
                progress()
                # Those that were not selected are there, too.
                (index,) = selected or [0]
                value: Value = result.result[index]
                return value

            def measure(names: Sequence[str], rounds: int) -> dict[str, list[Pair]]:
                pairs: dict[str, list[Pair]] = {name: [] for name in names}
                for number in range(rounds):
                    for name in names:
                        # Who begins alternates: what ran before shapes what runs next.
                        if number % 2 == 0:
                            before, after = run_once(base, name), run_once(head, name)
                        else:
                            after, before = run_once(head, name), run_once(base, name)
                        pairs[name].append((before, after))
                return pairs

            shared: dict[str, list[str]] = {}
            for commit in (base, head):
                show(commit)
                if self._where().resolve() != self._copy(commit).resolve():
                    raise MeasurementError(f"{self.name} is loaded from {self._where()}")
                shared[commit] = self.instruction_sets()
            instruction_set = next((s for s in shared[head] if s in shared[base]), None)
            if instruction_set is not None:
                os.environ[INSTRUCTION_SET] = instruction_set
            try:
                yield instruction_set, measure
            finally:
                os.environ.pop(INSTRUCTION_SET, None)
                spawner.close()
                for folder in caches.values():
                    shutil.rmtree(folder, ignore_errors=True)
