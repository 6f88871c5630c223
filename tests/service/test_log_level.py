"""A level of the service's log leaves out what is below it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from served_table import SECONDS

SCRIPT = """
import logging, sys
import morphogen.service.run as run
run.set_up_logs(run.LOG_LEVELS[sys.argv[1]])
for name, number in run.LOG_LEVELS.items():
    logging.getLogger("morphogen.service").log(number, name)
    logging.getLogger("uvicorn").log(number, f"library {name}")
"""


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("info", ["info", "warning", "library warning", "error", "library error"]),
        ("warning", ["warning", "library warning", "error", "library error"]),
        ("error", ["error", "library error"]),
    ],
)
def test_the_log_tells_its_level_and_above(level: str, told: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, level],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    lines = [json.loads(line) for line in run.stderr.splitlines()]
    assert [line.get("message", line["event"]) for line in lines] == told
