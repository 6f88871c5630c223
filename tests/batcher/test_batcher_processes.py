"""A batcher's process: what is left undone at its end, and its forks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable

import pytest

import morphogen as mg
from held_engine import SECONDS
from naive import open_engine, random_pages, random_rows

PAGES = 700


def some_queries(total: int) -> list[mg.Query]:
    return mg.make_queries(random_rows(total, 3, PAGES, 0), PAGES)[0]


def test_an_unclosed_batcher_ends_with_its_process_and_loses_nothing() -> None:
    script = """
import morphogen as mg, numpy as np
table = np.ones((300, 8), dtype=np.uint8)
engine = mg.open_engine(mg.PageMatrix(table), device="cpu")
batcher = mg.MicroBatcher(engine)
for future in batcher.submit_many(mg.make_queries([[1], [2], [3]], 300)[0]):
    future.add_done_callback(lambda future: print(future.result().pages.shape))
"""
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-c", script],
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == ["(1, 1, 8)"] * 3


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_cannot_use_the_batcher() -> None:
    def in_child(check: Callable[[], None]) -> int:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                check()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    engine = open_engine(random_pages(PAGES, 48), threads=1)
    batcher = mg.MicroBatcher(engine)
    batcher.submit_many(some_queries(1))[0].result(SECONDS)
    query = some_queries(1)[0]

    def check() -> None:
        with pytest.raises(mg.BatcherClosedError, match=r"not to its fork \d+"):
            batcher.submit(query)
        with pytest.raises(mg.BatcherClosedError):
            batcher.statistics()
        assert batcher.close()

    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with batcher._monitor.changed:
            held.set()
            forked.wait(SECONDS)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(SECONDS)
    try:
        assert in_child(check) == 0
    finally:
        forked.set()
        holder.join()
    assert batcher.submit(query).result(SECONDS).pages.any()
    batcher.close()
    engine.close()
