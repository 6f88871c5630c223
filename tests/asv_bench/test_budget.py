"""What can be counted is what asv_bench/budget.json says: asv_bench/README.md has the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import budget

RECORDED = {"answer": {"instructions": 1000, "allocations": 1}, "gen": {"allocations": 0}}


@pytest.mark.parametrize("group", budget.GROUPS)
def test_counts_are_those_of_the_budget(group: str) -> None:
    """In a process of its own, which may load the stand-in driver."""
    command = [sys.executable, str(Path(budget.__file__)), group]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 3:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("what", "changed", "difference"),
    [
        ("answer", {"instructions": 1021, "allocations": 1}, "1,021 instructions, recorded"),
        ("answer", {"instructions": 979, "allocations": 1}, "979 instructions, recorded"),
        ("answer", {"instructions": 1000, "allocations": 2}, "2 allocations, recorded are 1"),
        ("answer", {"instructions": 1000}, "allocations is no more"),
        ("gen", {"allocations": 1}, "1 allocations, recorded are 0"),
        ("pack", {"allocations": 0}, "allocations is new"),
    ],
)
def test_losses_and_gains_differ(what: str, changed: dict[str, float], difference: str) -> None:
    (found,) = budget.differences(RECORDED, {**RECORDED, what: changed}, same_toolchain=True)
    assert found.startswith(f"{what}: {difference}")


def test_instructions_may_vary_a_little_and_more_with_another_compiler() -> None:
    varied = {**RECORDED, "answer": {"instructions": 1020, "allocations": 1}}
    assert not list(budget.differences(RECORDED, varied, same_toolchain=True))
    varied["answer"]["instructions"] = 1300
    assert not list(budget.differences(RECORDED, varied, same_toolchain=False))
    varied["answer"]["instructions"] = 2000
    assert list(budget.differences(RECORDED, varied, same_toolchain=False))
