"""Runs, results and exit codes of tools/gpu/check.sh, with the stand-in driver for a GPU.

The first hour on a real GPU is expensive, so the script must work at the first attempt.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from standin_driver import environment

ROOT = Path(__file__).resolve().parents[2]
CHECK, WHEELS = ROOT / "tools" / "gpu" / "check.sh", ROOT / "tools" / "gpu" / "wheels.sh"
STAGES = (
    *("build", "facts", "bench256", "benchmax", "parity", "tests"),
    *("memcheck", "racecheck", "initcheck", "asv"),
)
# The commands on the script's path: all that it needs, and no tool that only some machines have.
TOOLS = (
    *("bash", "cat", "date", "dirname", "env", "git", "grep", "mkdir", "realpath", "sed", "tail"),
    *("tee", "timeout", "uname"),
)

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@dataclass(frozen=True)
class Run:
    """A run of the script: its exit code, output and results."""

    code: int
    output: str
    results: Path

    @property
    def table(self) -> dict[str, str]:
        """Return the last lines: the outcome of each stage."""
        rows = self.output.rpartition("stage ")[2].splitlines()[1:]
        return {name: result for name, result, _ in (re.split(r"  +", row) for row in rows)}


def run(folder: Path, *stages: str, options: tuple[str, ...] = (), **variables: str) -> Run:
    """Run the script over the installed package, with only the tools that it needs on its path."""
    tools = folder / "bin"
    if not tools.exists():
        tools.mkdir()
        for name in TOOLS:
            (tools / name).symlink_to(shutil.which(name) or f"/{name} is not here")
    settings = {
        "PATH": str(tools),
        "CUDA_HOME": "/nowhere",
        "VENV": sys.prefix,
        "PYTHON": "/nowhere/python3",
        "OUT": str(folder / "out"),
    }
    result = subprocess.run(
        [CHECK, *options, *(word for stage in stages for word in ("--stage", stage))],
        env={**os.environ, **settings, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    return Run(result.returncode, result.stdout, folder / "out")


@pytest.fixture(scope="module")
def gpu_variables(standin_directory: Path) -> dict[str, Any]:
    """Variables that make a small GPU of the stand-in, and small work of all stages."""
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


def test_the_stages(tmp_path: Path) -> None:
    assert run(tmp_path, options=("--list",)).output.split() == list(STAGES)
    documented = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert all(f"`{stage}`" in documented for stage in STAGES)
    subprocess.run(["bash", "-n", WHEELS], check=True)


@pytest.mark.parametrize("options", [("--stage", "nothing"), ("--nothing",), ("nowhere",)])
def test_wrong_usage(tmp_path: Path, options: tuple[str, ...]) -> None:
    result = run(tmp_path, options=options)
    assert result.code == 2
    assert len(result.output.splitlines()) == 1


def test_a_machine_without_a_gpu_fails_and_says_why(tmp_path: Path) -> None:
    stages = ("bench256", "parity", "tests", "asv")
    result = run(tmp_path, *stages, CUDA_VISIBLE_DEVICES="", LD_LIBRARY_PATH="")
    assert result.code == 1
    assert result.table == dict.fromkeys(stages, "failed: 1")
    assert result.output.count("no GPU can be used: ") == len(stages)
    assert not result.results.exists()


def test_without_an_environment(tmp_path: Path) -> None:
    result = run(tmp_path, "parity", VENV=str(tmp_path / "none"))
    assert result.code == 1
    assert "--stage build makes it" in result.output


def test_the_wheels_that_are_fetched() -> None:
    """They are those that pyproject.toml names for the build, the package, its tests and asv."""

    def wanted(*options: str) -> set[str]:
        command = [sys.executable, str(ROOT / "tools" / "gpu" / "requirements.py"), *options]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert all(line in text for line in run.stdout.splitlines())
        return {re.split(r"[<>=~!;\[ ]", line)[0] for line in run.stdout.splitlines()}

    assert wanted("--build") >= {"cython", "cython-cmake", "cuda-bindings"}
    assert "asv" not in wanted("--build")
    assert wanted() >= {"cython", "numpy", "rich", "cryptography", "pytest", "asv"}
    assert wanted() >= {"h11", "litestar", "matplotlib"}, "of the extras that others name"
    assert "morphogen" not in wanted(), "no index has it"


SANITIZER = """#!/bin/bash
# memcheck finds nothing, racecheck has no access to the device, initcheck finds something.
tool=$2
while [ "$1" != --error-exitcode ]; do shift; done
shift 2
[ "$tool" = racecheck ] && { echo "Error: Device not supported"; exit 1; }
"$@" || exit
[ "$tool" = memcheck ]
"""


@pytest.mark.slow
def test_the_sanitizers(tmp_path: Path, gpu_variables: dict[str, Any]) -> None:
    tool = tmp_path / "cuda" / "bin" / "compute-sanitizer"
    tool.parent.mkdir(parents=True)
    tool.write_text(SANITIZER)
    tool.chmod(0o755)
    stages = ("memcheck", "racecheck", "initcheck")
    result = run(tmp_path, *stages, **gpu_variables, CUDA_HOME=str(tmp_path / "cuda"))
    assert result.table == {"memcheck": "ok", "racecheck": "absent", "initcheck": "failed: 1"}
    assert result.output.count("0 wrong answers") == 2
    assert result.code == 1


def test_a_stage_that_takes_too_long(tmp_path: Path, gpu_variables: dict[str, Any]) -> None:
    """The script ends and records it, and runs the next stage."""
    result = run(tmp_path, "parity", "facts", **gpu_variables, GPU_CHECK_SECONDS="0.01")
    assert result.table == dict.fromkeys(("parity", "facts"), "failed: out of time")
    assert result.code == 1


@pytest.mark.slow
def test_as_many_pages_as_fit(tmp_path: Path, gpu_variables: dict[str, Any]) -> None:
    memory = dict.fromkeys(("STANDIN_TOTAL_MEMORY", "STANDIN_FREE_MEMORY"), str(4 << 20))
    variables = gpu_variables | memory | {"GPU_CHECK_MAX_PAGES": "max", "GPU_CHECK_BATCHES": "2"}
    result = run(tmp_path, "benchmax", **variables)
    assert result.code == 0, result.output
    header, (row,) = read_csv(result.results, "max")
    assert 3 << 20 < int(header["pages"]) * 4096 < 4 << 20
    assert row["correct"] == "true"


# The whole


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Make a repository with one commit on main, and return it with the commit's hash."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder = tmp_path_factory.mktemp("repository")
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    for arguments in (
        ("init", "--quiet", "--initial-branch=main"),
        (*identity, "commit", "--quiet", "--allow-empty", "--message=first"),
    ):
        subprocess.run(["git", "-C", folder, *arguments], check=True)
    shown = subprocess.run(
        ["git", "-C", folder, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    return folder, shown.stdout.strip()


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
    gpu_variables: dict[str, Any],
    repository: tuple[Path, str],
) -> Run:
    """Run all stages. The first fails, and the others take the installed package."""
    return run(tmp_path_factory.mktemp("whole"), **gpu_variables, COMMIT=repository[1])


@pytest.mark.slow
def test_a_failing_stage_stops_no_other(whole: Run) -> None:
    expected = dict.fromkeys(STAGES, "ok") | {"build": "failed: 127", "facts": "absent"}
    expected |= dict.fromkeys(("memcheck", "racecheck", "initcheck"), "absent")
    expected["asv"] = "ok" if importlib.util.find_spec("asv") else "absent"
    assert whole.table == expected, whole.output
    assert whole.code == 1
    (stages,) = whole.results.glob("*-stages.txt")
    started = stages.name.removesuffix("-stand-in-gpu-stages.txt")
    files = [path for path in whole.results.iterdir() if path.is_file()]
    assert len(files) == 6
    assert all(path.name.startswith(f"{started}-stand-in-gpu") for path in files)
    assert stages.read_text().splitlines() == whole.output.splitlines()[-len(STAGES) - 1 :]
    facts = (whole.results / f"{started}-stand-in-gpu.txt").read_text(encoding="utf-8")
    assert "Stand-in GPU" in facts
    assert "nvidia-smi is not here" in facts


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pages"), [("65536", "200"), ("max", "300")])
def test_the_files_of_the_benchmarks(whole: Run, name: str, pages: str) -> None:
    header, rows = read_csv(whole.results, name)
    assert (header["pages"], header["page_size"]) == (pages, "4096")
    assert [row["q"] for row in rows] == ["1", "2", "5"]
    assert {row["correct"] for row in rows} == {"true"}
    assert all(float(row["read_ms"]) > 0 for row in rows)

    (path,) = whole.results.glob(f"*-{name}.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["ok"] is True
    assert data["strategies_lacking"] == []
    strategies = {(row["q"], row["name"]) for row in data["strategies"]}
    wanted = ("single", "chunks-2", "chunks-2-lanes-1", "chunks-4", "chunks-8", "chunks-2-graph")
    assert {(5, strategy) for strategy in wanted} <= strategies
    assert data["recommendation"]["cap"]["cap"] == 2
    assert [row["way"] for row in data["concurrency"]] == ["lone", "direct", "batcher"]
    assert [row["checksum_batch"] for row in data["rows"]] == [
        row["checksum_batch"] for row in rows
    ]
    assert bool(data["phases"]) == (name == "65536")


@pytest.mark.slow
def test_gpu_tests_ran_and_none_was_skipped(whole: Run) -> None:
    counts = re.findall(r"^(\d+) passed.* in \d", whole.output, re.M)
    assert len(counts) == 2, whole.output
    assert all(int(count) >= 20 for count in counts)
    assert whole.output.count("tests skipped: 0") == 2


# The results for asv

needs_asv = pytest.mark.skipif(importlib.util.find_spec("asv") is None, reason="needs asv")


@pytest.mark.slow
@needs_asv
def test_asv_publishes_the_results(
    whole: Run, repository: tuple[Path, str], tmp_path: Path
) -> None:
    config = tmp_path / "asv.conf.json"
    settings = {
        "version": 1,
        "project": "morphogen",
        "repo": str(repository[0]),
        "branches": ["main"],
        "environment_type": "virtualenv",
        "results_dir": str(whole.results / "asv-results"),
        "html_dir": str(tmp_path / "html"),
    }
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "asv", "--config", str(config), "publish", "--no-pull"]
    subprocess.run(command, check=True)
    index = json.loads((tmp_path / "html" / "index.json").read_text())
    assert repository[1] in index["revision_to_hash"].values()
    assert "stand-in-gpu" in index["machines"]
    speedup = "gpu.Speedup.track_speedup_over_single_loop"
    assert index["benchmarks"][speedup]["params"][0] == ["2", "4", "8"]
    for name in (speedup, "gpu.Scan.track_cost"):
        found = (tmp_path / "html" / "graphs").rglob(f"{name}.json")
        (graph,) = (path for path in found if "summary" not in path.parts)
        ((_, values),) = json.loads(graph.read_text())
        assert len(values) == 3 * 2
        assert all(value > 0 for value in values)


@pytest.mark.slow
@needs_asv
def test_no_results_without_a_gpu(tmp_path: Path) -> None:
    """The benchmarks do not apply there, and the script writes no results."""
    script = ROOT / "asv_bench" / "gpu_results.py"
    options = ["--results", str(tmp_path / "results"), "--machine", "none", "--commit", "0" * 40]
    result = subprocess.run(
        [sys.executable, str(script), *options],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "not measured: gpu." in result.stderr
    assert not (tmp_path / "results").exists()
