"""The counts are those of asv_bench/budget.json. asv_bench/README.md has the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import budget


@pytest.mark.slow
@pytest.mark.parametrize("group", budget.GROUPS)
def test_counts_are_those_of_the_budget(group: str) -> None:
    """The counts come from a process of its own, which may load the stand-in driver."""
    command = [sys.executable, str(Path(budget.__file__)), group]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 3:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, f"{result.stderr}\nIf that is meant: budget.py --record"


@pytest.mark.parametrize(
    ("counted", "here", "elsewhere"),
    [
        ({"instructions": 1020, "allocations": 1}, 0, 0),
        ({"instructions": 1021, "allocations": 1}, 1, 0),
        ({"instructions": 979, "allocations": 1}, 1, 0),
        ({"instructions": 2000, "allocations": 2}, 2, 2),
        ({"instructions": 1000}, 1, 1),
        ({"instructions": 1000, "allocations": 1, "launches": 0}, 1, 1),
    ],
)
def test_losses_gains_and_other_names_differ(
    counted: dict[str, float], here: int, elsewhere: int
) -> None:
    """Instructions may vary by 2%, and all counts by more with another compiler."""
    recorded: budget.Counts = {"answer": {"instructions": 1000, "allocations": 1}}
    for same_toolchain, expected in ((True, here), (False, elsewhere)):
        assert len([*budget.differences(recorded, {"answer": counted}, same_toolchain)]) == expected
