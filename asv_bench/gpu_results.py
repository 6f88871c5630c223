"""Run the GPU benchmarks, and write them as asv's results of the commit that was measured.

    python asv_bench/gpu_results.py --results asv_bench/results --machine nvidia-h100-80gb-hbm3

A machine with a GPU may have only a copy of the files. `asv run` needs the repository; this
program takes the commit's hash.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
import time
from math import isfinite
from pathlib import Path

from asv.benchmarks import Benchmarks  # type: ignore[import-untyped]
from asv.config import Config  # type: ignore[import-untyped]
from asv.environment import ExistingEnvironment  # type: ignore[import-untyped]
from asv.machine import Machine  # type: ignore[import-untyped]
from asv.repo import NoRepository  # type: ignore[import-untyped]
from asv.results import Results  # type: ignore[import-untyped]
from asv.runner import run_benchmarks  # type: ignore[import-untyped]

FOLDER = Path(__file__).resolve().parent
# asv's own name has the interpreter's path in it.
PYTHON = ".".join(platform.python_version_tuple()[:2])


def find_commit(name: str) -> tuple[str, int]:
    """Return a commit's hash and date. Without the repository take a whole hash, dated now."""
    command = ["git", "-C", str(FOLDER), "log", "-1", "--format=%H %ct", name]
    if shutil.which("git"):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            found, date = result.stdout.split()
            return found, int(date)
    if not re.fullmatch(r"[0-9a-f]{40}", name):
        raise SystemExit(
            f"no commit {name!r} here: give all 40 digits of the measured commit's hash"
        )
    return name, int(time.time())


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the GPU benchmarks of asv_bench.")
    parser.add_argument("--results", type=Path, required=True, help="asv's folder of results")
    parser.add_argument("--machine", required=True, help="the name that the dashboard shows")
    parser.add_argument("--commit", default="HEAD", help="what is measured (default: HEAD)")
    options = parser.parse_args()
    commit, date = find_commit(options.commit)
    config = Config.load(str(FOLDER / "asv.conf.json"))
    config.benchmark_dir = str(FOLDER / config.benchmark_dir)
    config.results_dir = str(options.results)
    environment = ExistingEnvironment(config, sys.executable, {}, {})
    benchmarks = Benchmarks.discover(config, NoRepository(), [environment], [None], [r"^gpu\."])
    machine = Machine()
    machine.__dict__ |= Machine.get_defaults() | {"machine": options.machine}
    facts = {**machine.__dict__, "python": PYTHON}
    results = Results(facts, {}, commit, 1000 * date, PYTHON, f"existing-py{PYTHON}", {})
    run_benchmarks(benchmarks, environment, results, show_stderr=True, launch_method="forkserver")
    # asv has None for a failure, and NaN for a benchmark that does not apply.
    missing = {
        name
        for name, benchmark in benchmarks.items()
        for value in results.get_result_value(name, benchmark["params"])
        if value is None or not isfinite(value)
    }
    if missing:
        raise SystemExit(f"not measured: {', '.join(sorted(missing))}")
    results.save(config.results_dir)
    benchmarks.save()
    machine.save(config.results_dir)
    print(f"written: {options.results / options.machine}, commit {commit[:8]}")


if __name__ == "__main__":
    main()
