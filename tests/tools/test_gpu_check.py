"""tools/gpu/check.sh, with the stand-in driver for a GPU: what it runs, records and leaves."""

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

import pytest

from standin_driver import environment

ROOT = Path(__file__).resolve().parents[2]
CHECK, WHEELS = ROOT / "tools" / "gpu" / "check.sh", ROOT / "tools" / "gpu" / "wheels.sh"
STAGES = (
    *("build", "facts", "bench256", "benchmax", "parity", "tests"),
    *("memcheck", "racecheck", "initcheck", "asv"),
)
# What the script finds on its path: enough, and no tool that is there only on some machines.
TOOLS = (
    *("bash", "cat", "date", "dirname", "env", "git", "mkdir", "realpath", "sed", "tail", "tee"),
    *("timeout", "uname"),
)

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
pytestmark = needs_bash


@dataclass(frozen=True)
class Run:
    """What a run of the script said and did."""

    code: int
    output: str
    results: Path

    @property
    def table(self) -> dict[str, str]:
        """The last lines: what became of each stage."""
        rows = self.output.rpartition("stage ")[2].splitlines()[1:]
        return {name: result for name, result, _ in (re.split(r"  +", row) for row in rows)}


def run(folder: Path, *arguments: str, **variables: str) -> Run:
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
        [CHECK, *arguments],
        env={**os.environ, **settings, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    return Run(result.returncode, result.stdout, folder / "out")


@pytest.fixture(scope="module")
def gpu_variables(standin_directory: Path) -> dict[str, str]:
    """What makes a small GPU of the stand-in, and small work of everything."""
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


# Without a GPU


@pytest.mark.parametrize("script", [CHECK, WHEELS], ids=lambda path: path.name)
def test_the_script_is_correct_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


def test_the_stages(tmp_path: Path) -> None:
    assert run(tmp_path, "--list").output.split() == list(STAGES)
    text = CHECK.read_text(encoding="utf-8")
    documented = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for stage in STAGES:
        assert f"\nstage_{stage}() {{" in text
        assert f"`{stage}`" in documented


@pytest.mark.parametrize(
    "arguments", [("--stage", "nothing"), ("--stage",), ("--nothing",), ("nowhere",)]
)
def test_wrong_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = run(tmp_path, *arguments)
    assert result.code == 2
    assert len(result.output.splitlines()) == 1


def test_the_help(tmp_path: Path) -> None:
    result = run(tmp_path, "--help")
    assert result.code == 0
    assert "tools/gpu/check.sh [WHEELS]" in result.output
    assert "set -u" not in result.output


def test_a_machine_without_a_gpu_fails_and_says_why(tmp_path: Path) -> None:
    stages = ("bench256", "parity", "tests", "asv")
    chosen = [word for stage in stages for word in ("--stage", stage)]
    result = run(tmp_path, *chosen, CUDA_VISIBLE_DEVICES="", LD_LIBRARY_PATH="")
    assert result.code == 1
    assert result.table == dict.fromkeys(stages, "failed: 1")
    assert result.output.count("no GPU can be used: ") == len(stages)
    assert not result.results.exists()


def test_without_an_environment(tmp_path: Path) -> None:
    result = run(tmp_path, "--stage", "parity", VENV=str(tmp_path / "none"))
    assert result.code == 1
    assert "--stage build makes it" in result.output


def test_what_the_wheels_are_for() -> None:
    """The build, the package, its tests and asv: as pyproject.toml has them."""
    command = [sys.executable, str(ROOT / "tools" / "gpu" / "requirements.py")]
    wanted = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    names = {re.split(r"[<>=~!;\[ ]", line)[0] for line in wanted}
    assert {"cython-cmake", "cuda-bindings", "nvidia-cuda-profiler-api", "numpy", "rich"} <= names
    assert {"cryptography", "hypothesis", "pytest", "asv"} <= names
    assert {"httpx", "litestar", "matplotlib"} <= names, "of the extras that others name"
    assert "morphogen" not in names, "no index has it"
    assert all(line in text for line in wanted)
    build = subprocess.run([*command, "--build"], check=True, capture_output=True, text=True)
    names = {re.split(r"[<>=~!;\[ ]", line)[0] for line in build.stdout.splitlines()}
    assert "cython" in names
    assert "asv" not in names


# The sanitizers

SANITIZER = """#!/bin/bash
# memcheck finds nothing, racecheck has no access to the device, initcheck finds something.
tool=$2
while [ "$1" != --error-exitcode ]; do shift; done
shift 2
[ "$tool" = racecheck ] && { echo "Error: Device not supported"; exit 1; }
"$@" || exit
[ "$tool" = memcheck ]
"""


def test_the_sanitizers(tmp_path: Path, gpu_variables: dict[str, str]) -> None:
    tool = tmp_path / "cuda" / "bin" / "compute-sanitizer"
    tool.parent.mkdir(parents=True)
    tool.write_text(SANITIZER)
    tool.chmod(0o755)
    stages = ("memcheck", "racecheck", "initcheck")
    chosen = [word for stage in stages for word in ("--stage", stage)]
    result = run(tmp_path, *chosen, **gpu_variables, CUDA_HOME=str(tmp_path / "cuda"))
    assert result.table == {"memcheck": "ok", "racecheck": "absent", "initcheck": "failed: 1"}
    assert result.output.count("0 wrong answers") == 2
    assert result.code == 1


def test_a_stage_that_takes_too_long(tmp_path: Path, gpu_variables: dict[str, str]) -> None:
    """It is ended and recorded, and the next one runs."""
    variables = {**gpu_variables, "GPU_CHECK_SECONDS": "0.01"}
    result = run(tmp_path, "--stage", "parity", "--stage", "facts", **variables)
    assert result.table == dict.fromkeys(("parity", "facts"), "failed: out of time")
    assert result.code == 1


def test_as_many_pages_as_fit(tmp_path: Path, gpu_variables: dict[str, str]) -> None:
    memory = dict.fromkeys(("STANDIN_TOTAL_MEMORY", "STANDIN_FREE_MEMORY"), str(4 << 20))
    variables = gpu_variables | memory | {"GPU_CHECK_MAX_PAGES": "max", "GPU_CHECK_BATCHES": "2"}
    result = run(tmp_path, "--stage", "benchmax", **variables)
    assert result.code == 0, result.output
    header, (row,) = read_csv(result.results, "max")
    assert 3 << 20 < int(header["pages"]) * 4096 < 4 << 20
    assert row["correct"] == "true"


def test_a_second_run_of_a_day_leaves_the_files_of_the_first(
    tmp_path: Path, gpu_variables: dict[str, str]
) -> None:
    started = ("2026-11-23-1504", "2026-11-23-1505")
    for time in started:
        run(tmp_path, "--stage", "facts", **gpu_variables, STARTED=time)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"{time}-stand-in-gpu.txt" for time in started}


# The whole


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One commit on main, of an empty project."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder = tmp_path_factory.mktemp("repository")
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    for arguments in (
        ("init", "--quiet", "--initial-branch=main"),
        (*identity, "commit", "--quiet", "--allow-empty", "--message=first"),
    ):
        subprocess.run(["git", "-C", folder, *arguments], check=True)
    return folder


@pytest.fixture(scope="module")
def commit(repository: Path) -> str:
    command = ["git", "-C", str(repository), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, gpu_variables: dict[str, str], commit: str
) -> Run:
    """All stages. The first fails, and the others take the installed package."""
    return run(tmp_path_factory.mktemp("whole"), **gpu_variables, COMMIT=commit)


has_asv = importlib.util.find_spec("asv") is not None
needs_asv = pytest.mark.skipif(not has_asv, reason="needs asv")


@pytest.mark.slow
def test_a_failing_stage_stops_no_other(whole: Run) -> None:
    expected = dict.fromkeys(STAGES, "ok") | {"build": "failed: 127", "facts": "absent"}
    expected |= dict.fromkeys(("memcheck", "racecheck", "initcheck"), "absent")
    expected["asv"] = "ok" if has_asv else "absent"
    assert whole.table == expected, whole.output
    assert whole.code == 1
    (stages,) = whole.results.glob("*-stages.txt")
    started = stages.name.removesuffix("-stand-in-gpu-stages.txt")
    files = [path for path in whole.results.iterdir() if path.is_file()]
    assert len(files) == 6
    assert all(path.name.startswith(f"{started}-stand-in-gpu") for path in files)
    assert stages.read_text().splitlines() == whole.output.splitlines()[-len(STAGES) - 1 :]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pages"), [("65536", "200"), ("max", "300")])
def test_the_csv_files(whole: Run, name: str, pages: str) -> None:
    header, rows = read_csv(whole.results, name)
    assert (header["pages"], header["page_size"]) == (pages, "4096")
    assert [row["q"] for row in rows] == ["1", "2", "5"]
    assert {row["correct"] for row in rows} == {"true"}
    assert all(float(row["read_ms"]) > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["65536", "max"])
def test_the_json_files(whole: Run, name: str) -> None:
    """Every strategy and the callers, beside what the CSV file has."""
    (path,) = whole.results.glob(f"*-{name}.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["ok"] is True
    assert data["strategies_lacking"] == []
    strategies = {(row["q"], row["name"]) for row in data["strategies"]}
    wanted = ("single", "chunks-2", "chunks-2-lanes-1", "chunks-4", "chunks-8", "chunks-2-graph")
    assert {(5, strategy) for strategy in wanted} <= strategies
    assert data["recommendation"]["cap"]["cap"] == 2
    assert [row["way"] for row in data["concurrency"]] == ["lone", "direct", "batcher"]
    checksums = [row["checksum_batch"] for row in read_csv(whole.results, name)[1]]
    assert [row["checksum_batch"] for row in data["rows"]] == checksums
    assert bool(data["phases"]) == (name == "65536")


@pytest.mark.slow
def test_the_facts(whole: Run) -> None:
    (path,) = whole.results.glob("*-stand-in-gpu.txt")
    text = path.read_text(encoding="utf-8")
    assert "Stand-in GPU" in text
    assert "nvidia-smi is not here" in text


@pytest.mark.slow
def test_gpu_tests_ran_and_none_was_skipped(whole: Run) -> None:
    counts = re.findall(r"^(\d+) passed.* in \d", whole.output, re.M)
    assert len(counts) == 2, whole.output
    assert all(int(count) >= 20 for count in counts)
    assert whole.output.count("tests skipped: 0") == 2


@pytest.mark.slow
@needs_asv
def test_the_dashboard_shows_the_results(
    whole: Run, repository: Path, commit: str, tmp_path: Path
) -> None:
    config = tmp_path / "asv.conf.json"
    settings = {
        "version": 1,
        "project": "morphogen",
        "repo": str(repository),
        "branches": ["main"],
        "environment_type": "virtualenv",
        "results_dir": str(whole.results / "asv-results"),
        "html_dir": str(tmp_path / "html"),
    }
    config.write_text(json.dumps(settings))
    subprocess.run(
        [sys.executable, "-m", "asv", "--config", config, "publish", "--no-pull"], check=True
    )
    index = json.loads((tmp_path / "html" / "index.json").read_text())
    assert commit in index["revision_to_hash"].values()
    assert "stand-in-gpu" in index["machines"]
    speedup = "gpu.Speedup.track_speedup_over_single_loop"
    assert index["benchmarks"][speedup]["params"][0] == ["2", "4", "8"]
    for name, count in ((speedup, 3 * 2), ("gpu.Scan.track_cost", 3 * 2)):
        (graph,) = (
            path
            for path in (tmp_path / "html" / "graphs").rglob(f"{name}.json")
            if "summary" not in path.parts
        )
        ((_, values),) = json.loads(graph.read_text())
        assert len(values) == count
        assert all(value > 0 for value in values)


@pytest.mark.slow
@needs_asv
def test_no_results_without_a_gpu(tmp_path: Path) -> None:
    """The benchmarks are not applicable there, and nothing is written that would look like some."""
    arguments = ("--results", tmp_path / "results", "--machine", "none", "--commit", "0" * 40)
    result = subprocess.run(
        [sys.executable, str(ROOT / "asv_bench" / "gpu_results.py"), *map(str, arguments)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "not measured: gpu." in result.stderr
    assert not (tmp_path / "results").exists()
