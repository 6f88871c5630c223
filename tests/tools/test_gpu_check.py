"""Stages of tools/gpu/check.sh one by one, with the stand-in driver for a GPU.

The first hour on a real GPU is expensive, so the script must work at the first attempt.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import stages
from gpu_check_runs import CHECK, ROOT, STAGES, WHEELS, read_csv, run, small_work, table

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture(scope="module")
def small(standin_directory: Path) -> dict[str, Any]:
    return small_work(standin_directory)


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


def test_a_copy_within_another_repository_is_of_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "ROOT", ROOT / "docs")
    assert stages.find_commit(None) == ""
    (tmp_path / "COMMIT").write_text("a hash\n")
    assert stages.find_commit(tmp_path) == "a hash"


SMI = """#!/bin/bash
case $1 in *event_reasons*) echo "Field is not a valid field to query."; exit 2 ;; esac
echo name, driver_version; echo Stand-in, 580.95.05
"""


def test_a_driver_that_knows_not_all_names_tells_of_the_others(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    run(tmp_path, options=["--list"])  # makes the folder of commands
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.write_text(SMI)
    smi.chmod(0o755)
    result = run(tmp_path, "facts", **small)
    assert result.table == {"facts": "failed: 2"}
    (facts,) = result.results.glob("*-stand-in-gpu.txt")
    assert "Stand-in, 580.95.05" in facts.read_text(encoding="utf-8")


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
while [ "$1" != --kernel-name ]; do shift; done
shift 2
"$@"
"""


REFUSED = """#!/bin/bash
while [ "$1" != --log-file ]; do shift; done
echo '==ERROR== ERR_NVGPUCTRPERM - The user does not have permission' >"$2"
exit 1
"""


@pytest.mark.slow
def test_the_tools_of_cuda(tmp_path: Path, small: dict[str, Any]) -> None:
    for name, text in (("compute-sanitizer", TOOL), ("ncu", PROFILER)):
        tool = tmp_path / "cuda" / "bin" / name
        tool.parent.mkdir(parents=True, exist_ok=True)
        tool.write_text(text)
        tool.chmod(0o755)
    variables = small | {"GPU_CHECK_CASE_SECONDS": "0"}
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


def test_a_profiler_that_may_not_count_leaves_no_result(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    run(tmp_path, options=["--list"])
    tool = tmp_path / "bin" / "ncu"
    tool.write_text(REFUSED)
    tool.chmod(0o755)
    result = run(tmp_path, "ncu", **small)
    assert result.table == {"ncu": "absent"}
    assert list(result.results.iterdir()) == []


@pytest.mark.slow
def test_the_small_case_checks_all_its_tables(small: dict[str, Any]) -> None:
    case = ROOT / "tools" / "gpu" / "small_case.py"
    ended = subprocess.run(
        [sys.executable, case], env={**os.environ, **small}, capture_output=True, text=True
    )
    assert ended.stdout == "0 wrong answers over 5 of 5 tables\n", ended.stderr


def test_a_stage_that_takes_too_long(tmp_path: Path, small: dict[str, Any]) -> None:
    """The script ends and records it, and runs the next stage."""
    result = run(tmp_path, "parity", "facts", **small, GPU_CHECK_SECONDS="0.01")
    assert result.table == dict.fromkeys(("parity", "facts"), "failed: out of time")
    assert result.code == 1


def test_a_limit_that_is_empty_is_the_usual_one(tmp_path: Path, small: dict[str, Any]) -> None:
    result = run(tmp_path, "parity", **small, VENV=str(tmp_path / "none"), GPU_CHECK_SECONDS="")
    assert result.table == {"parity": "failed: 1"}


def run_build_with(beneath: str, folder: Path) -> tuple[list[str | Path], dict[str, Any]]:
    """Return the command and variables of the stage build over a Python that is only a script."""
    script = folder / "beneath"
    script.write_text(f"#!{sys.executable}\nimport os, signal\n{beneath}")
    script.chmod(0o755)
    command: list[str | Path] = [sys.executable, CHECK.with_suffix(".py"), "--stage", "build"]
    variables = {"PYTHON": str(script), "WORK": str(folder / "work"), "OUT": str(folder / "out")}
    return command, {**os.environ, **variables, "SCRATCH": str(folder), "GPU_CHECK_SECONDS": "60"}


def test_a_stage_ends_before_what_it_leaves_behind(tmp_path: Path) -> None:
    leave = "child = os.fork()\nif not child:\n os.setsid(); signal.alarm(90); signal.pause()\n"
    leave += "print('left', child, flush=True)\nos._exit(1)\n"
    command, variables = run_build_with(leave, tmp_path)
    ended = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True)
    (child,) = re.findall(r"^left (\d+)$", ended.stdout, re.M)
    os.kill(int(child), signal.SIGKILL)  # it is still there
    assert table(ended.stdout) == {"build": "failed: 1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_an_interrupted_run_leaves_its_results(tmp_path: Path, number: signal.Signals) -> None:
    os.mkfifo(tmp_path / "begun")
    block = "open(os.environ['SCRATCH'] + '/begun', 'w').close()\nsignal.pause()\n"
    command, variables = run_build_with(block, tmp_path)
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL) as process:
        (tmp_path / "begun").open().close()  # waits for the script
        process.send_signal(number)
    assert process.returncode == 128 + number
    written = (tmp_path / "out" / "gpu-check.txt").read_text()
    assert table(written) == {"build": "failed: interrupted"}


def test_results_that_cannot_be_written_do_not_stop_the_stages(tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    (out / "gpu-check.tar.gz").mkdir(parents=True)
    result = run(tmp_path, "parity", "asv", LD_LIBRARY_PATH="", OUT=str(out))
    assert result.table == dict.fromkeys(("parity", "asv"), "failed: 1")
    assert result.output.count("the results are not written: ") == 2
    assert result.code == 1


def test_where_nothing_can_be_written_no_stage_begins(tmp_path: Path) -> None:
    nowhere = "/dev/null/folder"
    for result in (run(tmp_path, "parity", OUT=nowhere), run(tmp_path, "parity", WORK=nowhere)):
        assert result.code == 2
        assert "check.sh: error: " in result.output.splitlines()[-1]
        assert "== parity" not in result.output


def test_a_summary_of_results_that_broke_off(tmp_path: Path) -> None:
    folder = tmp_path / "docs" / "benchmarks"
    folder.mkdir(parents=True)
    heads = "q,single_ms_per_batch,batch_ms_per_batch,read_ms,batch_vs_single_speedup,correct"
    (folder / "a-gpu-65536.csv").write_text(f"# pages: 7\n# page_si\n{heads}\n2,1.5,0.8")
    (folder / "a-gpu-max.csv").write_text("")
    result = run(tmp_path, options=["--summary", tmp_path])
    assert result.code == 0, result.output
    assert "a-gpu-65536: 7 pages of " in result.output
    assert re.search(r"^ +2 +1.5 +0.8 .*unknown$", result.output, re.M)


@pytest.mark.slow
def test_as_many_pages_as_fit(tmp_path: Path, small: dict[str, Any]) -> None:
    memory = dict.fromkeys(("STANDIN_TOTAL_MEMORY", "STANDIN_FREE_MEMORY"), str(4 << 20))
    variables = small | memory | {"GPU_CHECK_MAX_PAGES": "max", "GPU_CHECK_BATCHES": "2"}
    result = run(tmp_path, "benchmax", **variables)
    assert result.code == 0, result.output
    header, (row,) = read_csv(result.results, "max")
    assert 3 << 20 < int(header["pages"]) * 4096 < 4 << 20
    assert row["correct"] == "true"


@pytest.mark.slow
def test_without_a_wheel_that_loads_and_a_compiler_only_the_build_is_lost(tmp_path: Path) -> None:
    copy, wheels = tmp_path / "copy", tmp_path / "wheels"
    shutil.copytree(ROOT / "tools" / "gpu", copy / "tools" / "gpu")
    shutil.copy(ROOT / "pyproject.toml", copy)
    wheels.mkdir()
    (wheels / "morphogen-0.1.0-py3-none-any.whl").write_bytes(b"no wheel")
    with zipfile.ZipFile(wheels / "cython_cmake-99-py3-none-any.whl", "w") as wheel:
        for name, text in {
            "METADATA": "Metadata-Version: 2.1\nName: cython-cmake\nVersion: 99\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }.items():
            wheel.writestr(f"cython_cmake-99.dist-info/{name}", text)
    result = run(
        tmp_path,
        *("build", "memcheck", "facts"),
        options=[wheels],
        check=copy / CHECK.relative_to(ROOT),
        VENV=str(tmp_path / "env"),
        LD_LIBRARY_PATH="",
    )
    assert "no finished wheel loads here: building from source" in result.output
    installed = [path.name for path in (tmp_path / "env").rglob("*.dist-info")]
    assert installed == ["cython_cmake-99.dist-info"], "what was left out spoils nothing"
    assert result.table == {"build": "failed: 1", "memcheck": "absent", "facts": "failed: 1"}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("asv") is None, reason="needs asv")
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
