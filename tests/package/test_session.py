"""The rules of a test session: the ids of each run, and a session for what another skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


def pytest_command(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "pytest", "-q", *arguments]


@pytest.mark.slow
def test_ids_are_the_same_in_every_run() -> None:
    # Two processes have other keys, addresses and, by their seeds, another order of sets.
    command = pytest_command("--collect-only", "-p", "no:cacheprovider", "--numprocesses=0")
    runs = [
        subprocess.Popen(
            command,
            cwd=TESTS.parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = (
        [line for line in run.communicate()[0].splitlines() if "::" in line] for run in runs
    )
    assert [run.returncode for run in runs] == [0, 0]
    assert len(first) > 1000
    assert first == second


SUITE = """
import pytest

def test_always():
    pass

def test_with_a_tool():
    pytest.importorskip("tool")

@pytest.mark.slow
def test_slow():
    pass
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of three tests under the rules of this one."""
    (tmp_path / "tests").mkdir()
    shutil.copy(TESTS / "conftest.py", tmp_path / "tests")
    (tmp_path / "tests" / "test_some.py").write_text(SUITE)
    folders = [str(TESTS / "support"), str(TESTS / "emulator"), "."]
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ntestpaths = tests\naddopts = --numprocesses=1\nmarkers = slow: slow\n"
        f"pythonpath = {' '.join(folders)}\n"
    )
    return tmp_path


def run(suite: Path, *options: str) -> tuple[int, str]:
    """Run a suite and return its exit status and last line."""
    # It needs one plugin, and to load all that are installed takes most of its time.
    command = pytest_command("-p", "xdist", *options)
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True)
    return result.returncode, (result.stdout + result.stderr).strip().splitlines()[-1]


@pytest.mark.slow
def test_a_second_session_runs_what_the_first_skipped(suite: Path) -> None:
    assert run(suite)[0] == pytest.ExitCode.OK
    status, last = run(suite, "--full", "--remaining")
    assert status == pytest.ExitCode.TESTS_FAILED
    assert last.startswith("1 passed, 1 skipped")
    (suite / "tool.py").touch()
    status, last = run(suite, "--full", "--remaining")
    assert status == pytest.ExitCode.OK
    assert last.startswith("2 passed")


@pytest.mark.slow
def test_there_is_no_second_session_without_a_first(suite: Path) -> None:
    status, last = run(suite, "--remaining")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert last == "ERROR: --remaining: no session has run the whole suite here"
