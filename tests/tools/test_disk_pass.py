"""tools/measure/disk_pass.py at a small size. Its speeds depend on the machine's disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import disk_pass

SCRIPT = Path(disk_pass.__file__)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "pages"
    path.write_bytes(np.random.default_rng(3).bytes((1 << 20) + 5))
    return path


def test_without_a_limit_it_shows_each_kind_of_pass(path: Path) -> None:
    options = ["--page-sizes", "4096", "--threads", "1", "2", "--batches", "1x1", "2x3"]
    command = [sys.executable, str(SCRIPT), "--file", str(path), "--no-limit", "--rounds", "1"]
    run = subprocess.run([*command, *options], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    figures = json.loads(run.stdout)
    assert figures["read_megabytes_per_second"] > 0
    kinds = [(row["threads"], row["queries"], row["keys"]) for row in figures["rows"]]
    assert kinds == [(1, 1, 1), (1, 2, 3), (2, 1, 1), (2, 2, 3)]
    assert all(row["ratio"] > 0 for row in figures["rows"])


def test_a_file_too_small_for_the_limit_is_refused(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert disk_pass.main(["--file", str(path), "--limit", "1"]) == 2
    assert "at least 3 times the limit of 1048576 bytes, not 1048581" in capsys.readouterr().err


def test_it_says_that_no_cgroup_can_be_made(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with path.open("r+b") as file:
        file.truncate(3 << 20)
    monkeypatch.setattr(disk_pass, "memory_group", lambda: (tmp_path / "none", "memory.max"))
    assert disk_pass.main(["--file", str(path), "--limit", "1"]) == 2
    assert "No cgroup can be made here" in capsys.readouterr().err


@pytest.mark.parametrize("missed", [False, True])
def test_the_exit_code_tells_whether_a_pass_was_slower(
    path: Path, monkeypatch: pytest.MonkeyPatch, missed: bool
) -> None:
    rows = [disk_pass.Row(4096, 1, 1, 1, 1000.0, 0.5 if missed else 0.95)]
    monkeypatch.setattr(disk_pass, "run", lambda args: (2000.0, rows))
    assert disk_pass.main(["--file", str(path)]) == missed
