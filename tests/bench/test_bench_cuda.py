"""The batch benchmark on a GPU: pages made there, the loops, the phases, and wrong answers."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

import numpy as np
import pytest

import morphogen.bench as bench
import morphogen.bench.config as bench_config
import morphogen.bench.trial as trial
import morphogen.bench.workload as workload
import morphogen.cli.progress_bar as progress_bar
from bench_runs import SMALL, config, read_csv
from morphogen import PageMatrix
from morphogen.cli import main
from standin_driver import StandIn
from wrong_answers import EDITS, Edit, edited_engine, lose_a_chunk

ON_GPU = [*SMALL, "--device", "cuda"]


def opener_of(edit: Edit) -> bench.Opener:
    from morphogen.engine.cuda import CudaEngine

    engine = edited_engine(CudaEngine, edit)
    return lambda pages, config, upload: engine(
        pages, config.ordinal, generate=config.seed if config.generated else None
    )


def test_rows_and_csv(gpu, tmp_path, capsys):
    gpu.set(compute_capability=90, multiprocessors=3)
    path = tmp_path / "rows.csv"
    arguments = ["--batch-sizes", "1,2,5", "--seed", "7", "--csv", str(path)]
    assert main([*ON_GPU, *arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    header, rows = read_csv(path)

    expected = {
        "device": "cuda:0",
        "device_name": "Stand-in GPU",
        "multiprocessors": "3",
        "instruction_set": "compute_80",
        "threads": "1",
        "grid": "1 block: 1 tile x 1 run",
        "pages_made_on": "device",
        "pages": "70",
        "page_size": "40",
        "seed": "7",
    }
    assert expected.items() <= header.items()
    assert tuple(rows[0]) == trial.COLUMNS
    assert data["ok"] is True
    assert data["device_name"] == "Stand-in GPU"
    assert data["grid"] == expected["grid"]
    assert data["config"]["device"] == "cuda:0"
    assert data["phases"] == []

    assert [row["micro_batch_sizes"] for row in rows] == ["1", "2", "2x2+1"]
    pages = workload.generated_pages(7, np.arange(70), 40)
    queries = workload.random_queries(70, 5, 3, 8)
    answers = np.array([workload.naive_answer(pages, query) for query in queries])
    for row, entry in zip(rows, data["rows"], strict=True):
        q = int(row["q"])
        assert row["correct"] == "true"
        assert row["checksum_single"] == row["checksum_batch"] == workload.checksum(answers[:q])
        sync, batch = float(row["sync_ms_per_batch"]), float(row["batch_ms_per_batch"])
        assert float(row["batch_vs_sync_speedup"]) == pytest.approx(sync / batch, rel=1e-4)
        assert float(row["sync_spread"]) >= 0
        assert entry["sync_ms_per_batch"] == pytest.approx(sync, rel=1e-4)


def test_no_launch_has_more_than_two_queries(gpu):
    bench.run_benchmark(config(device="cuda:0", batch_sizes=(7,), iterations=1, warmup=0))
    launches = [launch.kernel for launch in gpu.launches() if "scan" in launch.kernel]
    # The check of the other party, the batch, the single-query loop, the synchronous loop.
    assert launches.count("morphogen_scan_6") == 3 + 3
    assert launches.count("morphogen_scan_3") == 1 + 1 + 7 + 7
    assert len(launches) == 6 + 16


@pytest.mark.parametrize(
    "changes",
    [
        {"num_pages": 1, "page_size": 1, "keys_per_query": 1},
        {"num_pages": 600, "page_size": 23, "keys_per_query": 2},
        {"num_pages": 130, "page_size": 4104, "batch_sizes": (3,), "warmup": 0, "iterations": 1},
        {"pages_on": "host"},
        {"pages_on": "host", "page_size": 23},
    ],
)
def test_odd_shapes(gpu, changes):
    result = bench.run_benchmark(config(device="cuda:0", **changes))
    assert result.failures == ()
    assert all(row.correct for row in result.rows)


def test_pages_of_the_host_give_the_answers_of_the_cpu(gpu):
    on_cpu, on_gpu = (
        bench.run_benchmark(config(device=device, pages_on="host", seed=3))
        for device in ("cpu", "cuda:0")
    )
    for row, other in zip(on_cpu.rows, on_gpu.rows, strict=True):
        assert row.checksum_batch == other.checksum_batch


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_wrong_answers_are_noticed(gpu, edit, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(bench.OPENERS, "cuda", opener_of(edit))
    path = tmp_path / "rows.csv"
    assert main([*ON_GPU, "--batch-sizes", "1,2,5", "--csv", str(path)]) == 1
    output = capsys.readouterr()
    assert EDITS[edit] in output.err
    assert "DIFFERS" in output.out
    assert "false" in {row["correct"] for row in read_csv(path)[1]}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_wrong_answers_over_pages_too_many_to_add_up(gpu, edit, monkeypatch):
    monkeypatch.setattr(bench, "_MAX_NAIVE_BYTES", 0)
    result = bench.run_benchmark(config(device="cuda:0"), opener=opener_of(edit))
    assert result.failures
    faults = " ".join(result.failures)
    if "naive XOR" in EDITS[edit]:
        assert "party 1's answer do not add up to the fetched pages in queries" in faults
    else:
        assert EDITS[edit] in faults


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_right_answers_pass_the_same_checks(gpu, limit, monkeypatch):
    monkeypatch.setattr(bench, "_MAX_NAIVE_BYTES", limit)
    result = bench.run_benchmark(
        config(device="cuda:0"), opener=opener_of(lambda answer, *_: answer)
    )
    assert result.failures == ()


def test_a_skipped_page_is_noticed(gpu):
    """Both parties' answers would add up: only the naive XOR shows it."""
    from morphogen.engine.cuda import CudaEngine

    def open_short(pages: PageMatrix, config: bench.BenchmarkConfig, upload: Any) -> CudaEngine:
        made = workload.generated_pages(config.seed, np.arange(config.num_pages), config.page_size)
        fetched = workload.random_fetch(config.num_pages, 5, 3, config.seed + 1).indices
        made[next(page for page in range(len(made)) if page not in fetched)] = 0
        return CudaEngine(PageMatrix(made), config.ordinal)

    result = bench.run_benchmark(config(device="cuda:0"), opener=open_short)
    assert any("the batch differs from the naive XOR" in fault for fault in result.failures)
    assert any("the read gave 0x" in fault for fault in result.failures)
    assert not any("add up" in fault for fault in result.failures)


def test_wrong_chunks_of_the_synchronous_loop_are_noticed(gpu):
    result = bench.run_benchmark(config(device="cuda:0"), opener=opener_of(lose_a_chunk))
    assert "q = 5: the synchronous loop ran in chunks of ()" in result.failures


# Phases


def test_phases(gpu, capsys):
    assert main([*ON_GPU, "--batch-sizes", "1,5", "--phases"]) == 0
    assert "Phases of a batch and of its chunks" in capsys.readouterr().out
    assert main([*ON_GPU, "--batch-sizes", "1,5", "--phases", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["phases"]
    assert [(row["q"], row["micro_batch_sizes"]) for row in rows] == [
        (1, [1]),
        (5, [1] * 5),
        (5, [2, 2, 1]),
    ]
    for row in rows:
        assert row["total_us"] >= row["prepare_us"] > 0
        assert row["total_us"] >= row["device_us"] > 0
        assert min(row[f"{phase}_us"] for phase in ("submit", "wait", "copy")) >= 0


def test_wrong_answers_with_phases_are_noticed(gpu, monkeypatch, capsys):
    from morphogen.engine.cuda import CudaEngine

    class WrongWithPhases(CudaEngine):
        def time_phases(self, queries, **options):
            answer, times = super().time_phases(queries, **options)
            answer.pages[0, 0, 0] ^= 1
            return answer, times

    monkeypatch.setitem(bench.OPENERS, "cuda", lambda pages, *_: WrongWithPhases(pages, generate=0))
    assert main([*ON_GPU, "--batch-sizes", "2", "--phases"]) == 1
    assert "q = 2: the answer with times by phase was wrong in 3 rounds" in capsys.readouterr().err


# The device, its memory, the bar


def test_the_text_for_people(gpu, capsys):
    assert main([*ON_GPU, "--batch-sizes", "2,8"]) == 0
    output = capsys.readouterr().out
    assert "cuda:0 (Stand-in GPU), compute_80, 1 block: 1 tile x 1 run" in output
    assert "random pages, made on the device" in output
    assert "sync" in output
    assert output.count("equal") == 2
    assert "…" not in output, "no cell is cut short"
    assert max(map(len, output[: output.index("sync:")].splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "device"),
    [
        (["--device", "auto"], "cuda:0"),
        (["--device", "auto", "--threads", "1"], "cpu"),
        (["--device", "cuda:1"], "cuda:1"),
        (["--device", "cpu"], "cpu"),
    ],
)
def test_which_device(gpu, capsys, arguments, device):
    gpu.set(devices=2)
    assert main([*SMALL, "--batch-sizes", "1", *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == device


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threads", "2"], "threads and instruction_set are the CPU's, not for 'cuda:0'"),
        (["--instruction-set", "avx2"], "threads and instruction_set are the CPU's"),
        (["--device", "cuda:1"], "cuda:1 is not there"),
        (["--pages", "300000", "--page-size", "4096"], "and 1073741824 are free"),
        (["--pages", "max", "--page-size", "0"], "page_size must be 1 or more, not 0"),
    ],
)
def test_bad_input(gpu, arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*ON_GPU, *arguments, "--csv", "rows.csv"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("page_size", [16, 1000, 4096])
def test_as_many_pages_as_fit(gpu, capsys, page_size):
    free = 2 << 20
    gpu.set(free_memory=free)
    arguments = ["--pages", "max", "--page-size", str(page_size), "--batch-sizes", "1"]
    assert main([*ON_GPU, *arguments, "--iterations", "1", "--warmup", "0", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    stride = -(-page_size // 16) * 16
    assert 0.93 * free < data["config"]["num_pages"] * stride < free


def test_as_many_pages_as_fit_in_both_layouts(gpu, capsys):
    gpu.set(free_memory=40 << 20)
    arguments = ["--pages", "max", "--page-size", "1000", "--batch-sizes", "16", "--layout", "bits"]
    arguments += ["--strategies", "chunks-16", "--iterations", "1", "--warmup", "0", "--json"]
    assert main([*ON_GPU, *arguments]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["config"]["layout"] == "bits"
    assert 0.85 * (40 << 20) < data["config"]["num_pages"] * 2 * 1008 < 40 << 20


def test_both_layouts_are_for_one_gpu(gpu, capsys):
    assert main(["bench", "--device", "cpu", "--layout", "bits"]) == 2
    assert "layout='bits' is for one GPU, not for 'cpu'" in capsys.readouterr().err


def test_the_most_pages_are_at_least_one(gpu):
    gpu.set(free_memory=1000)
    assert bench_config.most_pages("cuda:0", 4096) == 1, "the engine then says what it lacks"


def test_pages_made_on_the_device_take_no_memory_of_the_host(gpu, monkeypatch):
    monkeypatch.setattr(bench, "available_memory", lambda: 70 * 40)
    changes = {"device": "cuda:0", "batch_sizes": (1,), "keys_per_query": 1}
    assert bench.run_benchmark(config(**changes)).failures == ()
    with pytest.raises(ValueError, match=r"and only 2\.7 KiB are available"):
        bench.run_benchmark(config(**changes, pages_on="host"))


def test_the_upload_is_shown(gpu, monkeypatch, capsys):
    calls: list[tuple[int, int, str]] = []
    bench.run_benchmark(
        config(device="cuda:0", pages_on="host"), progress=lambda *call: calls.append(call)
    )
    assert [call[:2] for call in calls if call[2] == "uploading"] == [(70 * 48, 70 * 48)]

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress_bar, "SILENT_SECONDS", 0.0)
    assert main([*ON_GPU, "--pages-on", "host"]) == 0
    assert re.search("uploading.*measuring", capsys.readouterr().err, re.DOTALL)


def test_a_lost_device_leaves_its_rows(gpu: StandIn, tmp_path, capsys):
    gpu.inject("cuLaunchKernel", "CUDA_ERROR_LAUNCH_FAILED", call=30, device_lost=True)
    path = tmp_path / "rows.csv"
    assert main([*ON_GPU, "--batch-sizes", "1,2,4", "--csv", str(path)]) == 2
    assert [row["q"] for row in read_csv(path)[1]] == ["1"]
    assert "cuLaunchKernel failed: CUDA_ERROR_LAUNCH_FAILED" in capsys.readouterr().err
    gpu.clear()


@pytest.mark.gpu
@pytest.mark.parametrize("pages_on", ["host", "device"])
def test_bench_on_a_gpu(pages_on, capsys):
    pages = min(3000, int(os.environ.get("GPU_CHECK_TEST_PAGES", "3000")))
    arguments = ["--pages", str(pages), "--page-size", "4096", "--pages-on", pages_on]
    assert main([*ON_GPU, *arguments, "--batch-sizes", "1,2,5", "--phases"]) == 0
    assert capsys.readouterr().out.count("equal") == 3
