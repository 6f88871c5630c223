"""What the benchmarks count: instructions, bytes and allocations, the same in every run."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import morphogen as mg
from benchmarks import callgrind, callgrind_work
from benchmarks.callgrind import Counts
from benchmarks.compiled import load_python_library
from gate_rules import find_rule
from morphogen.bench.workload import random_queries
from morphogen.engine.cpu import CpuEngine
from naive import random_table, unpack

# What callgrind writes of one region, shortened. Trailing zeros of the totals are not written.
DUMP = """\
# callgrind format
version: 1
desc: I1 cache: 32768 B, 64 B, 8-way associative
desc: Trigger: Client Request: answer 2 x 3
positions: line
events: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw

ob=/usr/lib/libc.so.6
fn=malloc
0 20 5

fn=answer
0 1000 500
cfn=malloc
calls=3 0
0 20 5
cob=/usr/lib/libc.so.6
cfn=aligned_alloc
calls=4 0
0 20 5
cfn=malloc_usable_size
calls=100 0
0 20 5
cfn=malloc'2
calls=1 0
0 20 5

totals: 1060 515 7 1 2 3 1 128
"""


def test_counts_are_read_from_what_callgrind_writes() -> None:
    name, counts = callgrind.parse_dump(DUMP)
    assert name == "answer 2 x 3"
    assert counts == Counts(instructions=1060, bytes_read=128 * 64, allocations=8)


def test_a_dump_without_reads_has_none() -> None:
    _, counts = callgrind.parse_dump(DUMP.replace("totals: 1060 515 7 1 2 3 1 128", "totals: 9"))
    assert (counts.instructions, counts.bytes_read) == (9, 0)


def test_what_callgrind_did_not_write_is_refused() -> None:
    with pytest.raises(ValueError, match="not a file that callgrind wrote"):
        callgrind.parse_dump("events: Ir")


def test_the_region_itself_and_its_calls_are_taken_off() -> None:
    assert Counts(1100, 640, 21).less(Counts(100, 0, 1), calls=10) == Counts(100, 64, 2)


@pytest.mark.slow
def test_two_runs_count_the_same(tmp_path: Path) -> None:
    """Within half of what the gate allows; and a pass reads what it must once."""
    runs = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            runs.append(callgrind.count_all(folder))
        except NotImplementedError as reason:
            pytest.skip(str(reason))
    first, second = runs
    assert first.keys() == second.keys() == set(callgrind_work.WORKS)
    rule = find_rule("callgrind.Work.track_instructions_avx2('gen 2^25')")
    assert rule is not None
    for name in first:
        instructions = pytest.approx(first[name].instructions, rel=rule.margin / 2)
        assert second[name].instructions == instructions, name
        assert second[name].allocations == first[name].allocations, name
    for shape in callgrind_work.ANSWERS:
        needed = pages_needed(*map(int, shape.split(" x "))) * callgrind_work.PAGE_SIZE
        # The sums of 63 buckets may leave the simulated cache, and come back for every eight pages.
        most = needed * 9 / 8 if shape == "2 x 3" else needed
        assert 0.98 * needed <= first[f"answer {shape}"].bytes_read <= 1.02 * most, shape


def pages_needed(queries: int, keys: int) -> int:
    """All, unless a pass over these pages leaves out those that none of its few keys selects."""
    total = callgrind_work.NUM_PAGES
    batch = random_queries(total, queries, keys, seed=1)  # as callgrind_work.py makes it
    with CpuEngine(mg.PageMatrix(random_table(1, 1))) as engine:
        if engine.read_order != "rows" or queries * keys > 6:
            return total
    selected = [
        unpack(mg.dpf.eval_full(key, total), total) for query in batch for key in query.keys
    ]
    return int(np.any(selected, axis=0).sum())


@pytest.fixture
def count(tmp_path: Path) -> Callable[[Callable[[], object]], int]:
    """Counts what a call asks Python's allocators for, when it runs for the second time."""
    try:
        counter = load_python_library("allocation_counter", tmp_path)
    except NotImplementedError as reason:
        pytest.skip(str(reason))

    def count_call(call: Callable[[], object]) -> int:
        gc.disable()
        try:
            for _ in range(2):
                counter.count_begin()
                call()
                counted: int = counter.count_end()
        finally:
            gc.enable()
        return counted

    return count_call


def test_each_allocation_is_counted(count: Callable[[Callable[[], object]], int]) -> None:
    # Objects that are kept; and the list that keeps them grows a few times.
    few = count(lambda: [object() for _ in range(10)])
    many = count(lambda: [object() for _ in range(110)])
    assert 100 <= many - few <= 115
    assert count(lambda: None) <= 2


TIME_TO_LAUNCH = """
import pathlib, sys
sys.path += sys.argv[2:]
from benchmarks import host, standin
standin.BUILT = pathlib.Path(sys.argv[1])
benchmark = host.HostTime()
benchmark.setup(65_536, 2)
import host_time
host_time.WARMUP, host_time.CALLS = 5, 20
print(benchmark.track_time_to_launch(65_536, 2))
"""


def test_the_time_to_a_launch_is_measured(standin_directory: Path) -> None:
    """In a process of its own, which loads the stand-in before it looks for a driver."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", TIME_TO_LAUNCH, str(standin_directory.parent)]
    result = subprocess.run(
        [*command, str(root / "asv_bench")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert 0 < float(result.stdout) < 1e6
