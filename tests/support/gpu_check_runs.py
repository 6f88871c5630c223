"""Runs of tools/gpu/check.sh with the stand-in driver for a GPU, and what they leave."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from standin_driver import environment

ROOT = Path(__file__).resolve().parents[2]
CHECK, WHEELS = ROOT / "tools" / "gpu" / "check.sh", ROOT / "tools" / "gpu" / "wheels.sh"
STAGES = (
    *("build", "facts", "bench256", "parity", "benchmax", "variants", "benchbits", "tests"),
    *("memcheck", "racecheck", "initcheck", "ncu", "asv"),
)
# The commands on the script's path: no compiler, no git, no tool that only some machines have.
TOOLS = ("bash", "cat", "dirname", "env", "uname")


@dataclass(frozen=True)
class Run:
    """A run of the script: its exit code, output, results, and what it left in OUT."""

    code: int
    output: str
    results: Path
    out: Path

    @property
    def table(self) -> dict[str, str]:
        """Return the last lines: the outcome of each stage."""
        return table(self.output)


def table(text: str) -> dict[str, str]:
    rows = text.rpartition("stage ")[2].partition("\n\n")[0].splitlines()[1:]
    return {name: result for name, result, *_ in (re.split(r"  +", row) for row in rows)}


def run(
    folder: Path,
    *stages: str,
    options: Sequence[str | Path] = (),
    check: Path = CHECK,
    before: Sequence[str] = (),
    **variables: str,
) -> Run:
    """Run the script over the installed package, with only the tools that it needs on its path."""
    tools, out = folder / "bin", folder / "out"
    if not tools.exists():
        tools.mkdir()
        for name in TOOLS:
            (tools / name).symlink_to(shutil.which(name) or f"/{name} is not here")
    shutil.rmtree(out, ignore_errors=True)  # as where each command gets an empty folder
    settings = {
        "PATH": str(tools),
        "CUDA_HOME": "/nowhere",
        "VENV": sys.prefix,
        "PYTHON": sys.executable,
        "WORK": str(folder / "work"),
        "OUT": str(out),
    }
    result = subprocess.run(
        [*before, check, *(word for stage in stages for word in ("--stage", stage)), *options],
        env={**os.environ, **settings, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    results = folder / "work" / "results" / "docs" / "benchmarks"
    return Run(result.returncode, result.stdout, results, out)


def small_work(standin_directory: Path) -> dict[str, Any]:
    """Return variables that make a small GPU of the stand-in, and small work of all stages."""
    path = environment(standin_directory)["LD_LIBRARY_PATH"]
    small = {"PAGES": "200", "MAX_PAGES": "300", "BATCHES": "1,2,5", "ITERATIONS": "2"}
    small |= {"CALLERS": "2", "TEST_PAGES": "70"}
    return {"LD_LIBRARY_PATH": path} | {f"GPU_CHECK_{name}": value for name, value in small.items()}


def read_csv(results: Path, name: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    (path,) = results.glob(f"*-{name}.csv")
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d-\d{{4}}-stand-in-gpu-{name}\.csv", path.name)
    lines = path.read_text(encoding="utf-8").splitlines()
    header = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    return header, list(csv.DictReader(line for line in lines if not line.startswith("# ")))
