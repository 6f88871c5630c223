"""The strategies of the benchmark: their runs, checks and recommendation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import morphogen as mg
import morphogen.bench as bench
import morphogen.bench.workload as workload
from bench_runs import GPU_ALL, GPU_DEFAULT, SMALL, config
from morphogen.bench.recommend import choose
from morphogen.bench.strategies import different_work, strategies_of, strategy_name
from morphogen.cli import main
from morphogen.engine.cpu import CpuEngine
from morphogen.engine.strategy import Strategy
from naive import random_pages
from wrong_answers import SPOILS, When, edited_engine, spoiled_engine


class FakeGpu:
    """The facts of a GPU engine, which refuses some strategies."""

    device = "cuda:0"
    default_strategy = GPU_DEFAULT

    def __init__(self, widest: int = 8, graph: bool = True) -> None:
        self.widest_micro_batch = widest
        self.graph = graph

    def answer(self, queries, *, max_micro_batch=None, lanes=None, graph=False):
        assert queries == [], "nothing is done to find out what there is"
        if not 1 <= max_micro_batch <= self.widest_micro_batch:
            raise ValueError(f"max_micro_batch must be in 1..{self.widest_micro_batch}")
        if lanes not in (1, 2, 4):
            raise ValueError(f"lanes must be 1, 2 or 4 on cuda:0, not {lanes}")
        if graph and not self.graph:
            raise ValueError("graph must be False")


def fake_gpu(**facts: Any) -> Any:
    return FakeGpu(**facts)


@pytest.fixture
def cpu() -> Iterator[CpuEngine]:
    with CpuEngine(mg.PageMatrix(random_pages(40, 16)), threads=1) as engine:
        yield engine


# Names


def test_the_names_of_a_gpu():
    strategies, lacking = strategies_of(["all"], fake_gpu())
    assert strategies == GPU_ALL
    assert lacking == ()
    assert list(strategies)[:2] == ["single", "chunks-2"]


def test_what_a_gpu_lacks_of_all_is_said():
    strategies, lacking = strategies_of(["all"], fake_gpu(widest=2, graph=False))
    assert list(strategies) == ["single", "chunks-2", "chunks-2-lanes-1", "chunks-2-lanes-4"]
    assert lacking == ("chunks-4", "chunks-8", "chunks-2-graph")


def test_all_of_a_cpu_are_the_widths_up_to_its_own(cpu):
    strategies, lacking = strategies_of(["all"], cpu)
    widest = cpu.widest_micro_batch
    widths = sorted({widest, *(1 << power for power in range(widest.bit_length()))})
    assert sorted(strategy.width for strategy in strategies.values()) == widths
    assert {strategy.lanes for strategy in strategies.values()} == {1}
    assert lacking == ()


def test_the_loop_and_the_default_are_always_there(cpu):
    default = f"chunks-{cpu.max_micro_batch}"
    assert list(strategies_of(["chunks-4"], cpu)[0]) == ["single", default, "chunks-4"]
    assert list(strategies_of(["single"], cpu)[0]) == ["single", default]
    assert list(strategies_of([default, "chunks-1"], cpu)[0]) == ["single", default]


def test_of_queries_with_fewer_keys_the_default_takes_more(cpu):
    strategies, lacking = strategies_of(["all"], cpu, keys_per_query=1)
    assert strategies["chunks-96"] == Strategy(96, 1, graph=False)
    assert list(strategies)[:2] == ["single", "chunks-96"]
    assert strategies["chunks-32"] == Strategy(32, 1, graph=False)
    assert lacking == ()
    assert list(strategies_of(["all"], fake_gpu(), keys_per_query=1)[0]) == list(GPU_ALL)


def test_a_benchmark_of_one_key_runs_the_default_and_what_was_asked_for(capsys):
    arguments = ["--keys-per-query", "1", "--batch-sizes", "96", "--strategies", "chunks-32"]
    assert main([*SMALL, *arguments, "--concurrency", "3", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["rows"][0]["micro_batch_sizes"] == [96]
    sizes = {row["name"]: row["micro_batch_sizes"] for row in data["strategies"]}
    assert sizes == {"single": [1] * 96, "chunks-96": [96], "chunks-32": [32] * 3}
    assert {row["name"]: row["default"] for row in data["strategies"]}["chunks-96"]


@pytest.mark.parametrize("name", GPU_ALL)
def test_names_and_strategies_stand_for_each_other(name):
    strategies, _ = strategies_of([name, "chunks-4-lanes-1-graph"], fake_gpu())
    assert strategies[name] == GPU_ALL[name]
    assert strategies["chunks-4-lanes-1-graph"] == Strategy(4, 1, graph=True)
    assert strategy_name(GPU_ALL[name], GPU_DEFAULT) == name


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("fast", "strategies must be all, or names such as single, chunks-4"),
        ("", "not ''"),
        ("chunks-0", "not 'chunks-0'"),
        ("chunks-2-lanes-0", "not 'chunks-2-lanes-0'"),
        ("chunks-2-graph-lanes-1", "not 'chunks-2-graph-lanes-1'"),
        ("all,all", "strategies must all be different, not ('all', 'all')"),
        ("chunks-9999", "on cpu, not 9999"),
        ("all,chunks-2-lanes-2", "lanes must be 1 on cpu, not 2"),
        ("chunks-2-graph", "graph must be False on cpu, not True"),
    ],
)
def test_strategies_that_there_are_not(names, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--strategies", names, "--csv", "rows.csv"]) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert output.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# Strategies that are run


def test_the_same_work_is_not_run_twice():
    assert different_work(GPU_ALL, GPU_DEFAULT, 1) == {
        "single": (),
        "chunks-2": ("single", "chunks-2-lanes-1", "chunks-2-lanes-4", "chunks-4", "chunks-8"),
        "chunks-2-graph": (),
    }
    assert different_work(GPU_ALL, GPU_DEFAULT, 4) == {
        "single": (),
        "chunks-2": ("chunks-2-lanes-4",),  # two chunks leave two lanes idle
        "chunks-2-lanes-1": (),
        "chunks-4": ("chunks-8",),
        "chunks-2-graph": (),
    }
    assert different_work(GPU_ALL, GPU_DEFAULT, 16) == dict.fromkeys(GPU_ALL, ())


def test_rows(capsys):
    arguments = ["--batch-sizes", "1,2,9", "--strategies", "chunks-2,chunks-4", "--json"]
    assert main([*SMALL, "--iterations", "7", *arguments]) == 0
    data = json.loads(capsys.readouterr().out)
    rows = {(row["q"], row["name"]): row for row in data["strategies"]}
    default = next(row["name"] for row in rows.values() if row["default"])
    assert list(rows) == [
        *((1, "single"), (1, default), (2, "single"), (2, default)),
        *((9, "single"), (9, default), (9, "chunks-2"), (9, "chunks-4")),
    ]
    assert rows[2, default]["same_work"] == ["chunks-2", "chunks-4"]
    assert rows[9, "chunks-2"]["micro_batch_sizes"] == [2, 2, 2, 2, 1]
    assert rows[9, "chunks-4"]["micro_batch_sizes"] == [4, 4, 1]
    assert all(row["correct"] for row in rows.values())
    assert all(row["p99_ms"] is None for row in rows.values()), "7 rounds have none"

    ms = {name: np.array(times) for name, times in data["rounds"][2]["ms"].items()}
    assert {"chunks-2", "chunks-4"} < set(ms), "all take part in the same rounds"
    for name, own in (
        ("chunks-4", ms["chunks-4"]),
        ("single", ms["single"]),
        (default, ms["batch"]),
    ):
        row = rows[9, name]
        assert row["ms"]["median"] == np.median(own)
        assert row["qps"] == pytest.approx(9e3 / np.median(own))
        for key, ratio in (
            ("vs_single", ms["single"] / own),
            ("vs_default", ms["batch"] / own),
            ("vs_read", own / ms["read"]),
        ):
            quartiles = tuple(np.quantile(ratio, [0.25, 0.5, 0.75]))
            assert (row[key]["low"], row[key]["median"], row[key]["high"]) == quartiles

    # The recommendation follows from the rounds.
    times: dict[str, Any] = {
        default: ms["batch"],
        **{name: ms[name] for name in ("single", "chunks-2", "chunks-4")},
    }
    choice = choose(9, times, default)
    found = data["recommendation"]["throughput"]
    assert (found["q"], found["best"]) == (9, choice.best)
    assert [one["speedup"] for one in found["comparisons"]] == [
        one.speedup for one in choice.comparisons
    ]
    latency = data["recommendation"]["latency"]
    assert (latency["q"], latency["best"], latency["comparisons"]) == (1, default, [])
    assert data["recommendation"]["cap"]["widths"] == [1, 2, 4]


def test_a_99th_percentile_with_a_hundred_rounds(capsys):
    arguments = ["--iterations", "100", "--batch-sizes", "3", "--strategies", "chunks-2"]
    assert main([*SMALL, *arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    ms = data["rounds"][0]["ms"]["chunks-2"]
    row = data["strategies"][-1]
    assert (row["name"], row["p99_ms"]) == ("chunks-2", np.percentile(ms, 99))


def test_without_strategies_nothing_is_recommended(capsys):
    assert main([*SMALL, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["strategies"] == []
    assert data["recommendation"] is None


def test_the_text_for_people(capsys):
    arguments = ["--batch-sizes", "1,8", "--strategies", "all", "--iterations", "10"]
    assert main([*SMALL, *arguments]) == 0
    output = capsys.readouterr().out
    assert "Recommended for this device and table" in output
    assert "throughput (batches of 8): chunks-" in output
    assert "latency of a lone query: chunks-" in output
    assert "…" not in output, "no cell is cut short"
    assert max(map(len, output.splitlines())) <= 100


def test_without_a_batch_of_one_there_is_no_latency(capsys):
    assert main([*SMALL, "--batch-sizes", "4", "--strategies", "all"]) == 0
    assert "latency of a lone query: not measured: no batch of 1" in capsys.readouterr().out


# Checks of answers


def asks_for(name: str) -> When:
    """Whether a call runs a whole batch of nine by a strategy."""
    width = {"single": 1, "batch": None}.get(name) if "-" not in name else int(name[7:])
    return lambda queries, options: len(queries) == 9 and options.get("max_micro_batch") == width


def opener_of(spoil: str, when: When) -> bench.Opener:
    engine = spoiled_engine(CpuEngine, SPOILS[spoil], when)
    return lambda pages, config, upload: engine(pages, threads=1)


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("name", ["chunks-2", "chunks-4", "chunks-8", "single", "batch"])
def test_wrong_answers_of_each_strategy_are_noticed(name, spoil, monkeypatch, capsys):
    monkeypatch.setitem(bench.OPENERS, "cpu", opener_of(spoil, asks_for(name)))
    arguments = ["--batch-sizes", "1,9", "--strategies", "all", "--iterations", "7"]
    assert main([*SMALL, *arguments, "--json"]) == 1
    output = capsys.readouterr()
    data = json.loads(output.out)
    assert data["ok"] is False
    words = f"strategy {name}" if "-" in name else name
    if (name, spoil) == ("single", "a chunk lost"):
        words = "single-query loop ran in chunks of"
    assert f"morphogen: q = 9: the {words} " in output.err
    rows = {(row["q"], row["name"]): row for row in data["strategies"]}
    default = next(row["name"] for row in rows.values() if row["default"])
    wrong = default if name == "batch" else name
    assert not rows[9, wrong]["correct"]
    assert all(rows[1, other]["correct"] for other in ("single", default))
    # A batch's own row is right even if a strategy's answers are wrong.
    assert [row["correct"] for row in data["rows"]] == [True, "-" in name]
    throughput = data["recommendation"]["throughput"]
    assert throughput["best"] != wrong, "what answers wrongly is not recommended"
    assert wrong in throughput["left_out"]


@pytest.mark.parametrize("spoil", ["corrupted", "short", "a chunk lost", "wrong order"])
def test_wrong_answers_of_the_synchronous_loop_alone_are_noticed(spoil, monkeypatch, capsys):
    """It makes a call for each query; the fourth goes wrong."""
    answers = []

    def edit(answer, queries, width, calls):
        if len(queries) != 1 or width is not None:
            return answer
        answers.append(answer)
        if len(answers) != 4:
            return answer
        return answers[2] if spoil == "wrong order" else SPOILS[spoil](answer)

    engine = edited_engine(CpuEngine, edit)
    monkeypatch.setitem(bench.OPENERS, "cpu", lambda pages, *_: engine(pages, threads=1))
    assert main([*SMALL, "--batch-sizes", "9", "--iterations", "1", "--warmup", "0"]) == 1
    output = capsys.readouterr()
    assert "DIFFERS" in output.out
    assert "morphogen: q = 9: the sync" in output.err
    assert "the batch" not in output.err


def test_a_strategy_that_is_wrong_in_the_last_round_only(monkeypatch, capsys):
    calls = []

    def last(queries, options):
        if options.get("max_micro_batch") == 4 and queries:
            calls.append(queries)
        return len(calls) == 3 and options.get("max_micro_batch") == 4

    monkeypatch.setitem(bench.OPENERS, "cpu", opener_of("corrupted", last))
    assert main([*SMALL, "--batch-sizes", "9", "--strategies", "chunks-4"]) == 1
    output = capsys.readouterr()
    assert "q = 9: the answer of the strategy chunks-4 changed in 1 rounds" in output.err
    assert "DIFFERS" in output.out


def test_answers_that_all_strategies_get_wrong_alike_are_noticed(monkeypatch):
    """They equal the single-query loop: only the naive answer shows it."""
    opener = opener_of("wrong order", lambda queries, options: len(queries) == 9)
    result = bench.run_benchmark(config(batch_sizes=(9,), strategies=("chunks-4",)), opener=opener)
    faults = [fault for fault in result.failures if "strategy chunks-4" in fault]
    naive = "q = 9: the strategy chunks-4 differs from the naive XOR of the pages in query"
    assert faults == [f"{naive} {at}" for at in (0, 1, 2, 3, 5, 6, 7, 8)]
    assert result.recommendation is not None
    assert result.recommendation.throughput.best is None


def test_right_answers_pass_the_same_checks():
    engine = spoiled_engine(CpuEngine, SPOILS["short"], lambda queries, options: False)
    result = bench.run_benchmark(
        config(batch_sizes=(1, 9), strategies=("all",)),
        opener=lambda pages, *_: engine(pages, threads=1),
    )
    assert result.failures == ()
    assert all(row.correct for row in result.strategies)


def test_the_answers_are_those_of_the_plain_run():
    pages = workload.random_pages(70, 40, 0)
    plain, matrix = (
        bench.run_benchmark(config(strategies=strategies)) for strategies in ((), ("all",))
    )
    assert [row.checksum_batch for row in plain.rows] == [row.checksum_batch for row in matrix.rows]
    query = workload.random_queries(70, 1, 3, 1)[0]
    assert plain.rows[0].checksum_batch == workload.checksum(workload.naive_answer(pages, query))
