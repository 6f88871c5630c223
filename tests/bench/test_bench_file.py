"""The benchmark over the pages of a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import morphogen.bench as bench
import morphogen.bench.workload as workload
from bench_runs import config, read_csv
from morphogen.bench.pages import open_pages, pages_of_file
from morphogen.cli import main
from morphogen.engine.cpu import CpuEngine
from wrong_answers import SPOILS, spoiled_engine

PAGE = 40
WHOLE = 70
FEW = ["bench", "--iterations", "2", "--warmup", "1", "--batch-sizes", "1,5", "--page-size", "40"]


@pytest.fixture
def content() -> bytes:
    return np.random.default_rng(5).bytes(WHOLE * PAGE + 7)


@pytest.fixture
def file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "table.bin"
    path.write_bytes(content)
    return path


def right_checksums(content: bytes, pages: int) -> list[str]:
    """Of the batches of one and five: the naive answers over so many pages of the file."""
    padded = content + bytes(-len(content) % PAGE)
    array = np.frombuffer(padded, dtype=np.uint8).reshape(-1, PAGE)[:pages]
    queries = workload.random_queries(pages, 5, 3, 1)
    answers = np.array([workload.naive_answer(array, query) for query in queries])
    return [workload.checksum(answers[:q]) for q in (1, 5)]


@pytest.mark.parametrize(
    ("arguments", "pages"),
    [
        ([], WHOLE + 1),  # the last filled up with zeros
        (["--pages", "999"], WHOLE + 1),
        (["--pages", str(WHOLE)], WHOLE),
        (["--pages", "13"], 13),
    ],
)
def test_the_pages_of_the_file_are_measured(arguments, pages, content, file, tmp_path, capsys):
    csv = tmp_path / "rows.csv"
    arguments = [*FEW, "--matrix-file", str(file), "--csv", str(csv), "--json", *arguments]
    assert main(arguments) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["config"]["num_pages"] == pages
    assert data["config"]["matrix_file"] == str(file)
    assert [row["checksum_batch"] for row in data["rows"]] == right_checksums(content, pages)
    header, rows = read_csv(csv)
    assert (header["table"], header["pages"]) == ("table.bin", str(pages))
    assert {row["correct"] for row in rows} == {"true"}
    assert file.read_bytes() == content, "the file is not changed"


def test_the_text_for_people_names_the_file(file, capsys):
    assert main([*FEW, "--matrix-file", str(file)]) == 0
    assert "pages of table.bin" in capsys.readouterr().out


def test_a_file_smaller_than_a_page(tmp_path, capsys):
    path = tmp_path / "small"
    path.write_bytes(b"hello")
    assert main([*FEW, "--matrix-file", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["num_pages"] == 1


def test_with_strategies_and_callers(file, capsys):
    arguments = ["--strategies", "all", "--concurrency", "2", "--json"]
    assert main([*FEW, "--matrix-file", str(file), *arguments]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"]
    assert data["strategies"]
    assert data["concurrency"]


def test_a_file_needs_no_memory_for_its_pages(file, monkeypatch):
    monkeypatch.setattr(bench, "available_memory", lambda: WHOLE * PAGE)
    changes = {"num_pages": 71, "batch_sizes": (1,), "keys_per_query": 1}
    assert bench.run_benchmark(config(**changes, matrix_file=file)).failures == ()
    with pytest.raises(ValueError, match="are available"):
        bench.run_benchmark(config(**changes))


@pytest.mark.parametrize("spoil", ["corrupted", "wrong order", "short"])
def test_wrong_answers_are_noticed(spoil, file, monkeypatch, capsys):
    engine = spoiled_engine(CpuEngine, SPOILS[spoil], lambda queries, _: len(queries) > 1)
    monkeypatch.setitem(bench.OPENERS, "cpu", lambda pages, *_: engine(pages))
    assert main([*FEW, "--matrix-file", str(file)]) == 1
    assert "q = 5: the batch " in capsys.readouterr().err


def test_a_page_left_out_is_noticed(file):
    """All loops answer alike from pages without the last: only the naive answer shows it."""

    def open_short(pages, *_):
        body = np.concatenate([pages.body, np.zeros((1, PAGE), dtype=np.uint8)])
        return CpuEngine(type(pages)(body))

    result = bench.run_benchmark(
        config(num_pages=WHOLE + 1, matrix_file=file, batch_sizes=(5,)), opener=open_short
    )
    assert any("the batch differs from the naive XOR" in fault for fault in result.failures)
    assert any("the read gave" in fault for fault in result.failures)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--matrix-file", "missing"], "missing: No such file or directory"),
        (["--matrix-file", "."], ".: Is a directory"),
        (["--matrix-file", "empty"], "a table needs at least one byte: empty has 0"),
        (["--matrix-file", "pipe"], "a table needs a file to map: pipe is a pipe"),
        (
            ["--matrix-file", "table.bin", "--page-size", "0"],
            "page_size must be in 1..2**40, not 0",
        ),
        (["--matrix-file", "table.bin", "--pages", "0"], "num_pages must be in 1..2**40"),
        (
            ["--matrix-file", "table.bin", "--pages", "max"],
            "as many pages as fit are measured only",
        ),
        (
            ["--matrix-file", "table.bin", "--pages-on", "device"],
            "the pages of a file cannot be made on the device",
        ),
    ],
)
def test_bad_input(arguments, words, file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    assert main([*FEW, *arguments, "--csv", "rows.csv"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert output.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_has_shrunk(file):
    settings = config(num_pages=WHOLE + 1, matrix_file=file)
    file.write_bytes(bytes(10 * PAGE))
    with pytest.raises(ValueError, match=r"must have at least 71 pages of 40 bytes, not 10$"):
        open_pages(settings)


def test_how_many_pages(file):
    assert pages_of_file(file, PAGE, None) == WHOLE + 1
    assert pages_of_file(file, PAGE, 5) == 5
    assert pages_of_file(file, 1 << 20, None) == 1


# On a GPU


def test_a_gpu_gets_the_pages_of_the_file(gpu, content, file, capsys):
    calls: list[tuple[int, int, str]] = []
    settings = config(
        device="cuda:0", num_pages=WHOLE + 1, matrix_file=file, batch_sizes=(1, 5), iterations=1
    )
    result = bench.run_benchmark(settings, progress=lambda *call: calls.append(call))
    assert result.failures == ()
    assert [row.checksum_batch for row in result.rows] == right_checksums(content, WHOLE + 1)
    assert any(what == "uploading" for _, _, what in calls)


def test_as_many_pages_of_the_file_as_fit_a_gpu(gpu, file, capsys):
    gpu.set(free_memory=3000)
    assert (
        main([*FEW, "--matrix-file", str(file), "--pages", "max", "--device", "cuda", "--json"])
        == 0
    )
    assert 1 <= json.loads(capsys.readouterr().out)["config"]["num_pages"] < WHOLE
