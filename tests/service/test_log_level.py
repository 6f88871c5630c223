"""A level of the service's log leaves out what is below it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from morphogen.service.logs import SeldomFilter
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


def test_a_library_repeats_a_warning_once_a_second() -> None:
    seldom = SeldomFilter()

    def is_written(seconds: float, message: str, level: int, name: str = "uvicorn.error") -> bool:
        record = logging.makeLogRecord({"name": name, "levelno": level, "msg": "%s"})
        record.args, record.created = (message,), seconds
        return seldom.filter(record)

    warning, error = logging.WARNING, logging.ERROR
    assert is_written(100.0, "invalid", warning)
    assert not is_written(100.9, "invalid", warning)
    assert is_written(100.9, "another", warning)
    assert is_written(100.9, "invalid", error)
    assert is_written(100.9, "invalid", warning, "asyncio")
    assert is_written(101.0, "invalid", warning)
    assert is_written(50.0, "invalid", warning), "somebody set the clock back"
    for _ in range(2):
        assert is_written(200.0, "cut_off", warning, "morphogen.service")
    assert all(is_written(300.0, f"warning {n}", warning) for n in range(1000))
    assert len(seldom._written) < 100
