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
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from standin_driver import environment

ROOT = Path(__file__).resolve().parents[2]
CHECK, WHEELS = ROOT / "tools" / "gpu" / "check.sh", ROOT / "tools" / "gpu" / "wheels.sh"
STAGES = (
    *("build", "facts", "bench256", "parity", "benchmax", "variants", "benchbits", "tests"),
    *("memcheck", "racecheck", "initcheck", "ncu", "asv"),
)
# The commands on the script's path: no compiler, no git, no tool that only some machines have.
TOOLS = ("bash", "cat", "dirname", "env", "uname")

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


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


def test_the_stages_end_in_time_and_are_documented(tmp_path: Path) -> None:
    listed = dict(line.split() for line in run(tmp_path, options=["--list"]).output.splitlines())
    assert tuple(listed) == STAGES
    documented = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for stage, seconds in listed.items():
        assert int(seconds) <= 480
        assert f"| {seconds} |" in documented.partition(f"`{stage}`")[2].partition("\n")[0]
    subprocess.run(["bash", "-n", WHEELS], check=True)


@pytest.mark.parametrize(
    "options", [("--stage", "nothing"), ("--nothing",), ("nowhere",), ("/", "/")]
)
def test_wrong_usage(tmp_path: Path, options: tuple[str, ...]) -> None:
    result = run(tmp_path, options=options)
    assert result.code == 2
    assert "check.sh: error: " in result.output.splitlines()[-1]


def test_a_machine_without_a_gpu_fails_and_says_why(tmp_path: Path) -> None:
    stages = ("bench256", "parity", "tests", "asv")
    result = run(tmp_path, *stages, CUDA_VISIBLE_DEVICES="", LD_LIBRARY_PATH="")
    assert result.code == 1
    assert result.table == dict.fromkeys(stages, "failed: 1")
    assert result.output.count("no GPU can be used: ") == len(stages)
    assert not result.results.exists()
    assert table((result.out / "gpu-check.txt").read_text()) == result.table


def test_without_an_environment(tmp_path: Path) -> None:
    result = run(tmp_path, "parity", VENV=str(tmp_path / "none"))
    assert result.code == 1
    assert "--stage build makes it" in result.output


def test_no_stage_begins_that_would_not_end_within_the_time(tmp_path: Path) -> None:
    result = run(tmp_path, "facts", "parity", options=["--within", "100"], LD_LIBRARY_PATH="")
    assert list(result.table) == ["facts"]
    assert "== parity: not run, since it may take" in result.output


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


TOOL = """#!/bin/bash
# memcheck finds nothing, racecheck has no access to the device, initcheck finds something.
tool=$2
while [ "$1" != --error-exitcode ]; do shift; done
shift 2
[ "$tool" = racecheck ] && { echo "Error: Device not supported"; exit 1; }
"$@" || exit
[ "$tool" = memcheck ]
"""
PROFILER = """#!/bin/bash
while [ "$1" != --log-file ]; do shift; done
echo 'Kernel Name,launch__registers_per_thread' >"$2"
while [ "$1" != --launch-count ]; do shift; done
shift 2
"$@"
"""


@pytest.mark.slow
def test_the_tools_of_cuda(tmp_path: Path, gpu_variables: dict[str, Any]) -> None:
    for name, text in (("compute-sanitizer", TOOL), ("ncu", PROFILER)):
        tool = tmp_path / "cuda" / "bin" / name
        tool.parent.mkdir(parents=True, exist_ok=True)
        tool.write_text(text)
        tool.chmod(0o755)
    variables = gpu_variables | {"GPU_CHECK_CASE_SECONDS": "0"}
    stages = ("memcheck", "racecheck", "initcheck", "ncu")
    result = run(tmp_path, *stages, **variables, CUDA_HOME=str(tmp_path / "cuda"))
    assert result.table == {
        "memcheck": "ok",
        "racecheck": "absent",
        "initcheck": "failed: 1",
        "ncu": "ok",
    }
    assert result.output.count("0 wrong answers over 1 of 5 tables") == 2
    (counted,) = result.results.glob("*-stand-in-gpu-ncu.csv")
    assert "launch__registers_per_thread" in counted.read_text()
    assert result.code == 1


@pytest.mark.slow
def test_the_small_case_checks_all_its_tables(gpu_variables: dict[str, Any]) -> None:
    case = ROOT / "tools" / "gpu" / "small_case.py"
    ended = subprocess.run(
        [sys.executable, case], env={**os.environ, **gpu_variables}, capture_output=True, text=True
    )
    assert ended.stdout == "0 wrong answers over 5 of 5 tables\n", ended.stderr


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


def make_wheel(folder: Path) -> None:
    """Pack the installed package, with the Python of the sources, as a wheel."""
    installed = distribution("morphogen")
    files = {str(file): Path(str(file.locate())) for file in installed.files or []}
    files = {name: path for name, path in files.items() if name.startswith("morphogen/")}
    source = ROOT / "src"
    files |= {str(path.relative_to(source)): path for path in source.rglob("*.py")}
    information = f"morphogen-{installed.version}.dist-info"
    (tag,) = re.findall(r"^Tag: (.*)$", installed.read_text("WHEEL") or "", re.M)
    with zipfile.ZipFile(folder / f"morphogen-{installed.version}-{tag}.whl", "w") as wheel:
        for name, path in files.items():
            if path.suffix != ".pyc" and path.is_file():
                wheel.write(path, name)
        for name in ("METADATA", "WHEEL", "entry_points.txt"):
            wheel.writestr(f"{information}/{name}", installed.read_text(name) or "")
        lines = [f"{name},,\n" for name in [*wheel.namelist(), f"{information}/RECORD"]]
        wheel.writestr(f"{information}/RECORD", "".join(lines))


def without_network() -> list[str]:
    """What a command begins with to run without a network, if this system allows that."""
    for more in ([], ["--user", "--map-root-user"]):
        command = [shutil.which("unshare") or "/unshare is not here", *more, "--net"]
        try:
            subprocess.run([*command, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return command
    return []


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
    gpu_variables: dict[str, Any],
    repository: tuple[Path, str],
) -> Run:
    """Rehearse the first hour: a copy without git's history, no network, no compiler.

    Each stage is a command of its own, for which OUT is empty.
    """
    folder = tmp_path_factory.mktemp("whole")
    copy, wheels = folder / "copy", folder / "wheels"
    wheels.mkdir()
    make_wheel(wheels)
    (wheels / "COMMIT").write_text(f"{repository[1]}\n")
    left = (".*", "build", "dist", "env", "html", "node_modules", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*left))
    variables = gpu_variables | {"VENV": str(folder / "env"), "STARTED": "2026-11-27-2100"}
    output, code = "", 0
    for stage in STAGES:
        one = run(
            folder,
            stage,
            options=[wheels],
            check=copy / CHECK.relative_to(ROOT),
            before=without_network(),
            **variables,
        )
        output, code = output + one.output, max(code, one.code)
        assert sorted(path.name for path in one.out.iterdir()) == [
            "gpu-check.tar.gz",
            "gpu-check.txt",
        ]
    return Run(code, output, one.results, one.out)


@pytest.mark.slow
def test_a_rehearsal_of_all_stages_fails_in_none(whole: Run) -> None:
    absent = ("facts", "memcheck", "racecheck", "initcheck", "ncu")
    expected = dict.fromkeys(STAGES, "ok") | dict.fromkeys(absent, "absent")
    expected["asv"] = "ok" if importlib.util.find_spec("asv") else "absent"
    summary = (whole.out / "gpu-check.txt").read_text()
    assert table(summary) == expected, whole.output
    assert whole.code == 0
    assert "building from source" not in whole.output
    files = {path.name for path in whole.results.iterdir()}
    measured = ("65536", "max", "variants", "bits")
    ends = {".txt", *(f"-{name}.{kind}" for name in measured for kind in ("csv", "json"))}
    assert files == {f"2026-11-27-2100-stand-in-gpu{end}" for end in ends}
    facts = (whole.results / "2026-11-27-2100-stand-in-gpu.txt").read_text(encoding="utf-8")
    assert "Stand-in GPU" in facts
    assert re.search(r"^commit [0-9a-f]{40}$", facts, re.M)


@pytest.mark.slow
def test_without_a_wheel_that_loads_and_a_compiler_only_the_build_is_lost(tmp_path: Path) -> None:
    copy, wheels = tmp_path / "copy", tmp_path / "wheels"
    shutil.copytree(ROOT / "tools" / "gpu", copy / "tools" / "gpu")
    shutil.copy(ROOT / "pyproject.toml", copy)
    wheels.mkdir()
    (wheels / "morphogen-0.1.0-py3-none-any.whl").write_bytes(b"no wheel")
    result = run(
        tmp_path,
        *("build", "memcheck", "facts"),
        options=[wheels],
        check=copy / CHECK.relative_to(ROOT),
        VENV=str(tmp_path / "env"),
        LD_LIBRARY_PATH="",
    )
    assert "no finished wheel loads here: building from source" in result.output
    assert result.table == {"build": "failed: 1", "memcheck": "absent", "facts": "failed: 1"}


@pytest.mark.slow
def test_the_archive_has_every_result_in_its_place(whole: Run, tmp_path: Path) -> None:
    with tarfile.open(whole.out / "gpu-check.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = {path.name for path in (tmp_path / "docs" / "benchmarks").iterdir()}
    assert unpacked == {path.name for path in whole.results.iterdir()}
    logs = {path.name for path in (tmp_path / "build" / "gpu-logs").glob("*.txt")}
    assert logs == {f"2026-11-27-2100-{stage}.txt" for stage in STAGES}


@pytest.mark.slow
def test_a_summary_of_folders_and_archives(whole: Run, tmp_path: Path) -> None:
    archive = whole.out / "gpu-check.tar.gz"
    text = (whole.out / "gpu-check.txt").read_text()
    assert "2026-11-27-2100-stand-in-gpu-65536: 200 pages of 4096 bytes" in text
    assert "DIFFERS" not in text
    assert len(re.findall(r"^ +[125] .* equal$", text, re.M)) >= 6
    assert re.search(r"^ +2 .* equal red", text, re.M), "a variant"
    copy = Path(shutil.copy(archive, tmp_path))
    for paths in ([copy], [whole.results.parents[1]], [copy, whole.results.parents[1]]):
        command = [sys.executable, str(CHECK.with_suffix(".py")), "--summary", *map(str, paths)]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == text


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
        "results_dir": str(whole.results.parents[1] / "asv_bench" / "results"),
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
