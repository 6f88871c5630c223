"""tools/measure/crowds.py: a short run of all phases. Its speeds depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "measure" / "crowds.py"
SMALL = ["--seconds", "2", "--entries", "2000", "--idle", "30", "--greedy", "20", "--json"]


def test_a_short_run_loses_no_answer_and_gets_none_wrong() -> None:
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *SMALL],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stderr
    figures = json.loads(run.stdout)
    assert figures["faults"] == []
    rows = {row["phase"]: row for row in figures["rows"]}
    assert list(rows) == [
        *("alone", "idle crowd", "slow crowd", "deaf crowd", "64 tasks", "greedy crowd"),
        *("restart 0", "restart 1"),
    ]
    assert all(row["lookups"] for row in rows.values())
    assert rows["greedy crowd"]["crowd"]["right"]
    assert set(figures["memory"]) == {"server 0", "server 1", "client"}
