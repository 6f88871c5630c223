"""The benchmark of several devices that share the pages."""

from __future__ import annotations

import json

import pytest

import morphogen as mg
from bench_runs import config, read_csv
from morphogen.bench import run_benchmark
from morphogen.bench.config import choose_device, most_pages
from morphogen.cli import main
from standin_driver import StandIn

RUN = ["bench", "--pages", "1100", "--page-size", "16", "--iterations", "1", "--warmup", "0"]


def test_several_devices_answer_as_one(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    arguments = ["--device", "cpu,cpu", "--threads", "2", "--batch-sizes", "1,3"]
    assert main([*RUN, *arguments, "--strategies", "all", "--csv", str(path)]) == 0
    header, rows = read_csv(path)
    assert (header["device"], header["threads"]) == ("cpu,cpu", "2")
    assert "grid" not in header
    assert [row["correct"] for row in rows] == ["true", "true"]
    assert "cpu,cpu, " in capsys.readouterr().out


def test_all_gpus_answer_as_one(gpu: StandIn, capsys) -> None:
    gpu.set(devices=2)
    assert main([*RUN, "--device", "cuda:all", "--batch-sizes", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["device"] == "cuda:0,cuda:1"
    assert result["instruction_set"] == "compute_80"
    assert [row["correct"] for row in result["rows"]] == [True]


def test_names_of_several_devices(gpu: StandIn) -> None:
    gpu.set(devices=2)
    assert choose_device("cuda:all") == "cuda:0,cuda:1"
    assert choose_device("cuda:1,cpu") == "cuda:1,cpu"
    gpu.set_device(0, compute_capability=75)
    mg.driver_status.cache_clear()
    assert choose_device("cuda:all") == "cuda:1"


def test_what_only_one_gpu_has_is_refused() -> None:
    with pytest.raises(ValueError, match="only on one GPU"):
        most_pages("cuda:0,cuda:1", 16)
    with pytest.raises(ValueError, match="only where that is one GPU"):
        config(device="cuda:0,cuda:1", pages_on="device")
    with pytest.raises(ValueError, match="phases are measured only on one GPU"):
        config(device="cuda:0,cuda:1", phases=True)
    with pytest.raises(ValueError, match="are the CPU's, not for 'cuda:0,cuda:1'"):
        config(device="cuda:0,cuda:1", threads=1)
    with pytest.raises(ValueError, match=r"^device must be 'cpu' or 'cuda:N', or several"):
        config(device="cuda:0,auto")
    assert not config(device="cuda:0,cuda:1").generated


def test_more_devices_than_leaves_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^3 devices cannot share 1000 pages"):
        run_benchmark(config(device="cpu,cpu,cpu", num_pages=1000))
