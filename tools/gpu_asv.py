"""Run the GPU benchmarks of asv_bench, and write result files that `asv publish` takes.

    python tools/gpu_asv.py --results asv_bench/results --machine nvidia-h100-80gb-hbm3

asv keeps the results of an installed package only for a commit of a repository that it can look
into, and a machine with a GPU may have no more than a copy of the files. So asv gets a repository
with one empty commit, and what it writes is given the name of the commit that was really measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from asv.machine import Machine, MachineCollection  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "asv_bench" / "benchmarks"
MODULE = "gpu"
# asv's own names for them have the interpreter's path in them.
PYTHON = ".".join(platform.python_version_tuple()[:2])
ENVIRONMENT = f"existing-py{PYTHON}"


@dataclass(frozen=True, slots=True)
class Commit:
    """What is measured: the hash, and the seconds at which it was made."""

    hash: str
    date: int

    @classmethod
    def find(cls, name: str) -> Commit:
        """Look it up in this clone. Elsewhere a whole hash is believed, and dated now."""
        try:
            found = git(ROOT, "log", "-1", "--format=%H %ct", name).split()
        except subprocess.CalledProcessError:
            if not re.fullmatch(r"[0-9a-f]{40}", name):
                raise SystemExit(
                    f"no commit {name!r} here: give all 40 digits of the measured commit's hash"
                ) from None
            return cls(name, int(time.time()))
        return cls(found[0], int(found[1]))


def git(folder: Path, *arguments: str, **environment: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout


def make_repository(folder: Path, date: int) -> None:
    """A repository of one empty commit, made at a time."""
    git(folder, "init", "--quiet", "--initial-branch=main")
    facts = {"NAME": "nobody", "EMAIL": "nobody@localhost", "DATE": f"@{date} +0000"}
    git(
        folder,
        *("-c", "commit.gpgsign=false", "commit", "--quiet", "--allow-empty", "--message=measured"),
        **{f"GIT_AUTHOR_{name}": fact for name, fact in facts.items()},
        **{f"GIT_COMMITTER_{name}": fact for name, fact in facts.items()},
    )


def run_asv(folder: Path, machine: str, date: int) -> Path:
    """Run the benchmarks, all of asv's own files in a folder. Returns where the results are."""
    repository, results = folder / "repository", folder / "results"
    repository.mkdir()
    make_repository(repository, date)
    config = folder / "asv.conf.json"
    settings = {
        "version": 1,
        "project": "morphogen",
        "repo": str(repository),
        "branches": ["main"],
        "environment_type": "virtualenv",
        "benchmark_dir": str(BENCHMARKS),
        "env_dir": str(folder / "env"),
        "results_dir": str(results),
    }
    config.write_text(json.dumps(settings), encoding="utf-8")

    # asv looks for what it knows of machines in the home folder.
    facts = Machine.get_defaults() | {"machine": machine, "os": platform.system()}
    known = {machine: facts, "version": MachineCollection.api_version}
    (folder / Path(MachineCollection.get_machine_file_path()).name).write_text(json.dumps(known))
    command = [sys.executable, "-m", "asv", "--config", str(config), "run", "--python=same"]
    command += ["--set-commit-hash=main", "--machine", machine, "--bench", rf"^{MODULE}\."]
    command += ["--show-stderr"]
    subprocess.run(command, check=True, cwd=folder, env={**os.environ, "HOME": str(folder)})
    return results


def adopt(source: Path, target: Path, machine: str, commit: Commit) -> Path:
    """Move asv's files to where they are kept, under the commit's own name."""
    (result,) = (path for path in (source / machine).iterdir() if path.name != "machine.json")
    content: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    # asv writes null for what failed, and NaN for what does not apply.
    missing = [
        name
        for name, (values, *_) in content["results"].items()
        if values is None or not all(value is not None and isfinite(value) for value in values)
    ]
    if missing:
        raise SystemExit(f"not measured: {', '.join(missing)}")
    content |= {"commit_hash": commit.hash, "env_name": ENVIRONMENT, "python": PYTHON}
    content["params"]["python"] = PYTHON
    (target / machine).mkdir(parents=True, exist_ok=True)
    for name in ("benchmarks.json", f"{machine}/machine.json"):
        (target / name).write_bytes((source / name).read_bytes())
    adopted = target / machine / f"{commit.hash[:8]}-{ENVIRONMENT}.json"
    adopted.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return adopted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, required=True, help="asv's folder of results")
    parser.add_argument("--machine", required=True, help="the name that the dashboard shows")
    parser.add_argument("--commit", default="HEAD", help="what is measured (default: HEAD)")
    arguments = parser.parse_args()
    commit = Commit.find(arguments.commit)
    with tempfile.TemporaryDirectory() as folder:
        results = run_asv(Path(folder), arguments.machine, commit.date)
        print("written:", adopt(results, arguments.results, arguments.machine, commit))


if __name__ == "__main__":
    main()
