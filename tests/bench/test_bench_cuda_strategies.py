"""The strategy matrix and concurrent callers on a GPU."""

from __future__ import annotations

import json
from typing import Any

import pytest

import morphogen.bench as bench
from bench_runs import GPU_ALL, SMALL, config
from morphogen import Query
from morphogen.cli import main
from morphogen.engine.strategy import Strategy
from wrong_answers import SPOILS, When, spoiled_engine

ON_GPU = [*SMALL, "--device", "cuda", "--iterations", "1", "--warmup", "1"]
ALL = list(GPU_ALL)


def opener_of(spoil: str, when: When) -> bench.Opener:
    from morphogen.engine.cuda import CudaEngine

    engine = spoiled_engine(CudaEngine, SPOILS[spoil], when)
    return lambda pages, config, upload: engine(pages, config.ordinal, generate=config.seed)


def test_all_strategies_are_run_and_right(gpu, capsys):
    assert main([*ON_GPU, "--batch-sizes", "1,9", "--strategies", "all", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    rows = {(row["q"], row["name"]): row for row in data["strategies"]}
    assert data["strategies_lacking"] == []
    assert [name for q, name in rows if q == 9] == ALL
    assert rows[9, "chunks-4"]["micro_batch_sizes"] == [4, 4, 1]
    assert rows[9, "chunks-8"]["micro_batch_sizes"] == [8, 1]
    assert rows[1, "chunks-2-graph"]["graph"]
    assert all(row["correct"] for row in rows.values())
    assert [row["name"] for row in rows.values() if row["default"]] == ["chunks-2"] * 2
    for name, lanes in (("chunks-2", 2), ("chunks-2-lanes-1", 1), ("chunks-2-lanes-4", 4)):
        assert rows[9, name]["lanes"] == lanes
        assert rows[9, name]["micro_batch_sizes"] == [2, 2, 2, 2, 1]
    assert set(rows[1, "chunks-2"]["same_work"]) >= {"single", "chunks-2-lanes-4"}


def test_the_cap_is_judged_where_wider_chunks_ran(gpu, capsys):
    """Of batches of 2, chunks of 4 and 8 are chunks of 2: nothing wider ran."""
    for size, words in (("2", "not measured whether a width of 2 is best: "), ("9", "2 ")):
        arguments = ["--iterations", "9", "--batch-sizes", size, "--strategies", "chunks-4"]
        assert main([*ON_GPU, *arguments]) == 0
        assert f"width: {words}" in capsys.readouterr().out


def test_nothing_wider_than_two_is_launched_unless_asked_for(gpu):
    names = ("chunks-2-lanes-1", "chunks-2-lanes-4")
    bench.run_benchmark(
        config(device="cuda:0", batch_sizes=(9,), strategies=names, concurrency=(3,), iterations=1)
    )
    kernels = {launch.kernel for launch in gpu.launches() if "scan" in launch.kernel}
    assert kernels == {"morphogen_scan_3", "morphogen_scan_6"}


def asked(strategy: Strategy) -> When:
    def when(queries: list[Query], options: dict[str, Any]) -> bool:
        wanted = {
            "max_micro_batch": strategy.width,
            "lanes": strategy.lanes,
            "graph": strategy.graph,
            "variant": None,
        }
        return len(queries) == 9 and options == wanted

    return when


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("name", ALL[2:])
def test_wrong_answers_of_each_strategy_are_noticed(gpu, name, spoil, monkeypatch, capsys):
    monkeypatch.setitem(bench.OPENERS, "cuda", opener_of(spoil, asked(GPU_ALL[name])))
    assert main([*ON_GPU, "--batch-sizes", "9", "--strategies", name, "--json"]) == 1
    output = capsys.readouterr()
    assert f"morphogen: q = 9: the strategy {name} " in output.err
    assert "the batch" not in output.err
    correct = {row["name"]: row["correct"] for row in json.loads(output.out)["strategies"]}
    assert correct == {"single": True, "chunks-2": True, name: False}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("chunks-9", "max_micro_batch must be in 1..8 on cuda:0, not 9"),
        ("chunks-2-lanes-3", "lanes must be 1, 2 or 4 on cuda:0, not 3"),
    ],
)
def test_what_the_engine_lacks_is_refused_by_name(gpu, name, words, capsys):
    assert main([*ON_GPU, "--batch-sizes", "9", "--strategies", name]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("spoil", ["corrupted", "wrong order", "short"])
def test_wrong_answers_from_pages_too_many_to_add_up(gpu, spoil, monkeypatch):
    monkeypatch.setattr(bench, "_MAX_NAIVE_BYTES", 0)
    opener = opener_of(spoil, lambda queries, options: options.get("lanes") == 4 and bool(queries))
    settings = config(
        device="cuda:0", batch_sizes=(9,), strategies=("chunks-2-lanes-4",), iterations=1
    )
    result = bench.run_benchmark(settings, opener=opener)
    assert result.failures
    assert all("strategy chunks-2-lanes-4" in fault for fault in result.failures)


def test_callers_share_chunks_of_two(gpu, capsys):
    assert main([*ON_GPU, "--batch-sizes", "1", "--concurrency", "4", "--json"]) == 0
    rows = {row["way"]: row for row in json.loads(capsys.readouterr().out)["concurrency"]}
    assert all(row["correct"] for row in rows.values())
    # The stand-in takes milliseconds for a pass: the others arrive meanwhile.
    assert 1 < rows["batcher"]["mean_chunk"] <= 2


def test_wrong_answers_to_callers_are_noticed(gpu, monkeypatch, capsys):
    opener = opener_of("corrupted", lambda queries, options: options == {"max_micro_batch": None})
    monkeypatch.setitem(bench.OPENERS, "cuda", opener)
    assert main([*ON_GPU, "--batch-sizes", "1", "--concurrency", "2", "--json"]) == 1
    output = capsys.readouterr()
    assert "callers = 2: the answers by way of batcher " in output.err
    correct = {row["way"]: row["correct"] for row in json.loads(output.out)["concurrency"]}
    assert correct == {"lone": True, "direct": True, "batcher": False}


@pytest.mark.gpu
def test_strategies_and_callers_on_a_gpu(capsys):
    arguments = ["--pages", "300", "--page-size", "4096", "--batch-sizes", "1,9"]
    arguments += ["--strategies", "all", "--concurrency", "4"]
    assert main([*ON_GPU, *arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in data["strategies"]} == set(ALL)
    assert all(row["correct"] for row in (*data["strategies"], *data["concurrency"]))
