"""tools/measure/switches.py: a short run of switches and a restart. Its speeds do not matter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "measure" / "switches.py"
SMALL = ["--seconds", "8", "--entries", "2000", "--clients", "6", "--processes", "2"]


def test_a_short_run_reads_each_epoch_right_and_loses_no_lookup() -> None:
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *SMALL],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stderr
    figures = json.loads(run.stdout)
    assert figures["faults"] == []
    assert (figures["wrong"], figures["failed"]) == (0, {})
    assert figures["lookups"]
    assert figures["epochs"] >= 3
    assert set(figures["memory"]) == {"server 0", "clients 0", "clients 1"}
