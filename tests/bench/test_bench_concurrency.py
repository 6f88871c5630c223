"""Concurrent callers in the benchmark: latencies, throughput, wrong answers."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import morphogen as mg
import morphogen.bench as bench
import morphogen.bench.concurrency as bench_concurrency
from bench_runs import SMALL, config
from morphogen.bench.concurrency import BATCHER, DIRECT, LONE
from morphogen.bench.config import REQUESTS
from morphogen.cli import main
from morphogen.engine.cpu import CpuEngine
from wrong_answers import SPOILS, When, spoiled_engine

CALLERS = 4
SECONDS = 30  # no test waits so long but one that has failed


def test_rows(capsys):
    arguments = ["--concurrency", "1,4", "--batch-sizes", "1", "--iterations", "3", "--json"]
    assert main([*SMALL, *arguments]) == 0
    data = json.loads(capsys.readouterr().out)
    rows = {(row["callers"], row["way"]): row for row in data["concurrency"]}
    assert list(rows) == [(1, DIRECT), (1, BATCHER), (4, LONE), (4, DIRECT), (4, BATCHER)]
    for (callers, way), row in rows.items():
        asking = 1 if way == LONE else callers
        assert row["requests"] == 3 * asking * REQUESTS
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["max_ms"]
        assert (row["p99_ms"] is None) == (row["requests"] < 100)
        assert 0 < row["qps"]["low"] <= row["qps"]["median"] <= row["qps"]["high"]
        assert 1 <= row["mean_chunk"] <= callers
        assert row["correct"]
    assert rows[4, DIRECT]["mean_chunk"] == 1, "direct calls do not share"
    assert rows[4, DIRECT]["vs_direct"]["median"] == 1


def test_many_requests_have_a_99th_percentile(capsys):
    arguments = ["--concurrency", "5", "--batch-sizes", "1", "--iterations", "3", "--json"]
    assert main([*SMALL, *arguments]) == 0
    for row in json.loads(capsys.readouterr().out)["concurrency"]:
        if row["way"] != LONE:
            assert row["p90_ms"] <= row["p99_ms"] <= row["max_ms"]


def test_the_text_for_people(capsys):
    assert main([*SMALL, "--concurrency", "3", "--batch-sizes", "2"]) == 0
    output = capsys.readouterr().out
    assert "Concurrent callers" in output
    assert output.count("equal") == 1 + 3
    assert "…" not in output, "no cell is cut short"
    assert max(map(len, output.splitlines())) <= 100


def test_progress():
    calls: list[tuple[int, int, str]] = []
    bench.run_benchmark(config(concurrency=(2,)), progress=lambda *call: calls.append(call))
    assert [call[:2] for call in calls if call[2] == "concurrent callers"] == [
        *((1, 3), (2, 3), (3, 3))
    ]


@pytest.mark.parametrize(
    ("callers", "words"),
    [
        ("0", "a number of callers must be in 1..1024, not 0"),
        ("1025", "a number of callers must be in 1..1024, not 1025"),
        ("2,2", "concurrency must all be different, not (2, 2)"),
        ("many", "must be whole numbers with commas between, not 'many'"),
    ],
)
def test_bad_input(callers, words, capsys):
    assert main([*SMALL, "--concurrency", callers]) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert output.err.count("\n") == 1


# Wrong answers


def opener_of(spoil: str, when: When) -> bench.Opener:
    engine = spoiled_engine(CpuEngine, SPOILS[spoil], when)
    return lambda pages, config, upload: engine(pages, threads=1)


def by_a_direct_call(queries: list[mg.Query], options: dict[str, Any]) -> bool:
    """Not by a batcher, and not in the loop."""
    caller = threading.current_thread().name.startswith("morphogen-bench")
    return caller and "max_micro_batch" not in options


def by_a_batcher(queries: list[mg.Query], options: dict[str, Any]) -> bool:
    """It passes on that its own caller asked for no width."""
    return options.get("max_micro_batch", 0) is None


@pytest.mark.parametrize("spoil", ["corrupted", "short", "a chunk lost"])
@pytest.mark.parametrize(
    ("way", "when"), [(DIRECT, by_a_direct_call), (BATCHER, by_a_batcher)], ids=[DIRECT, BATCHER]
)
def test_wrong_answers_are_noticed(way, when, spoil, monkeypatch, capsys):
    monkeypatch.setitem(bench.OPENERS, "cpu", opener_of(spoil, when))
    assert main([*SMALL, "--concurrency", "4", "--batch-sizes", "1,4", "--json"]) == 1
    output = capsys.readouterr()
    data = json.loads(output.out)
    assert f"morphogen: callers = 4: the answers by way of {way} " in output.err
    assert "q = " not in output.err, "the batches were right"
    correct = {row["way"]: row["correct"] for row in data["concurrency"]}
    assert not correct[way]
    assert correct[BATCHER if way == DIRECT else DIRECT]


@pytest.mark.parametrize("spoil", SPOILS)
def test_wrong_answers_to_callers_who_share_a_chunk_are_noticed(spoil, monkeypatch):
    """The first caller's chunk lasts until all others wait, who then share the next."""
    all_wait = threading.Event()

    class WatchedBatcher(mg.MicroBatcher):
        def _enqueue(self, *arguments: Any) -> None:
            super()._enqueue(*arguments)
            if self.statistics().queued == CALLERS - 1:
                all_wait.set()

    spoiled: Any = spoiled_engine(CpuEngine, SPOILS[spoil], shared)

    class PatientEngine(spoiled):  # type: ignore[misc]
        def answer(self, queries: list[mg.Query], **options: Any) -> mg.Answer:
            if by_a_batcher(queries, options):
                assert all_wait.wait(SECONDS)
            return super().answer(queries, **options)

    monkeypatch.setattr(bench_concurrency, "MicroBatcher", WatchedBatcher)
    result = bench.run_benchmark(
        config(batch_sizes=(1,), concurrency=(CALLERS,), warmup=0, iterations=1),
        opener=lambda pages, *_: PatientEngine(pages, threads=1),
    )
    assert result.failures
    for fault in result.failures:
        assert fault.startswith(f"callers = {CALLERS}: the answers by way of {BATCHER} ")
    correct = {row.way: row.correct for row in result.concurrency}
    assert correct == {LONE: True, DIRECT: True, BATCHER: False}


def shared(queries: list[mg.Query], options: dict[str, Any]) -> bool:
    return by_a_batcher(queries, options) and len(queries) > 1


def test_answers_that_change_later_are_noticed(monkeypatch):
    asked: list[int] = []

    def last(queries: list[mg.Query], options: dict[str, Any]) -> bool:
        asked.append(len(queries))
        return by_a_batcher(queries, options) and sum(asked) == total

    # The loop that gives the right answers, and two callers' requests, direct and by the batcher.
    settings = config(batch_sizes=(1,), concurrency=(1,), warmup=0, iterations=1)
    before = 3 + 1 + REQUESTS  # the trial's, the loop's, those of direct calls
    total = before + REQUESTS
    result = bench.run_benchmark(settings, opener=opener_of("corrupted", last))
    assert sum(asked) == total
    assert result.failures == (
        f"callers = 1: the answers by way of {BATCHER} changed for the callers [0]",
    )


def test_right_answers_pass_the_same_checks():
    engine = spoiled_engine(CpuEngine, SPOILS["short"], lambda *_: False)
    result = bench.run_benchmark(
        config(concurrency=(1, CALLERS)), opener=lambda pages, *_: engine(pages, threads=1)
    )
    assert result.failures == ()
    assert all(row.correct for row in result.concurrency)


def test_a_wrong_loop_is_not_the_measure(monkeypatch):
    """A wrong single-query loop does not hide other answers that differ from it."""
    short = opener_of("short", lambda queries, options: options.get("max_micro_batch") == 1)
    result = bench.run_benchmark(config(batch_sizes=(2,), concurrency=(2,)), opener=short)
    assert any(
        "differ from the single-query loop for the callers [1]" in x for x in result.failures
    )


def test_an_error_of_the_engine_ends_the_run(monkeypatch, capsys):
    class FailingEngine(CpuEngine):
        def answer(self, queries: list[mg.Query], **options: Any) -> mg.Answer:
            if by_a_batcher(queries, options):
                raise mg.DeviceError("it broke")
            return super().answer(queries, **options)

    monkeypatch.setitem(bench.OPENERS, "cpu", lambda pages, *_: FailingEngine(pages))
    assert main([*SMALL, "--concurrency", "3"]) == 2
    assert capsys.readouterr().err == "morphogen: it broke\n"


def test_threads_that_cannot_be_started(monkeypatch, capsys):
    """The first caller waits for the others: it must not wait for ever."""

    submitted = []

    class SmallPool(ThreadPoolExecutor):
        def submit(self, *call: Any) -> Any:  # type: ignore[override]
            submitted.append(call)
            if len(submitted) == 3:  # one caller alone, the first of two, the second
                raise RuntimeError("can't start new thread")
            return super().submit(*call)

    monkeypatch.setattr(bench_concurrency, "ThreadPoolExecutor", SmallPool)
    assert main([*SMALL, "--concurrency", "2", "--batch-sizes", "1"]) == 2
    assert "morphogen: cannot start 2 threads: can't start new thread" in capsys.readouterr().err
