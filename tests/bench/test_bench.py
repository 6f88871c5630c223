"""The batch benchmark: its rows and files, and the wrong answers that it notices."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import morphogen.bench as bench
import morphogen.bench.workload as workload
from bench_runs import SMALL, config, read_csv
from morphogen import Answer, Query, instruction_set
from morphogen.bench.pages import with_progress
from morphogen.cli import main
from morphogen.engine.cpu import CpuEngine
from wrong_answers import EDITS, Edit, edited, edited_engine

# As programs read them by name: none goes, and none changes its place.
COLUMNS = [
    "q",
    "single_ms_per_batch",
    "batch_ms_per_batch",
    "batch_vs_single_speedup",
    "single_qps",
    "batch_qps",
    "checksum_single",
    "checksum_batch",
    "read_ms",
    "batch_vs_read",
    "single_spread",
    "batch_spread",
    "read_spread",
    "correct",
    "micro_batch_sizes",
    "sync_ms_per_batch",
    "batch_vs_sync_speedup",
    "sync_spread",
    "single_vs_read",
    "sync_vs_read",
    "single_low_ms",
    "single_high_ms",
    "batch_low_ms",
    "batch_high_ms",
    "sync_low_ms",
    "sync_high_ms",
    "read_low_ms",
    "read_high_ms",
    "batch_vs_single_low",
    "batch_vs_single_high",
    "batch_vs_read_low",
    "batch_vs_read_high",
    "variant",
]


def opener_of(edit: Edit) -> bench.Opener:
    engine = edited_engine(CpuEngine, edit)
    return lambda pages, config, upload: engine(pages, threads=1)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_wrong_answers_are_noticed(edit, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(bench.OPENERS, "cpu", opener_of(edit))
    path = tmp_path / "rows.csv"
    assert main([*SMALL, "--batch-sizes", "1,2,5", "--csv", str(path)]) == 1
    output = capsys.readouterr()
    assert EDITS[edit] in output.err
    assert "DIFFERS" in output.out
    rows = read_csv(path)[1]
    assert [row["q"] for row in rows] == ["1", "2", "5"], (
        "what was measured is written all the same"
    )
    assert "false" in {row["correct"] for row in rows}


@pytest.mark.parametrize("change", [lambda total, calls: 1, lambda total, calls: total ^ calls])
def test_wrong_reads_are_noticed(change, monkeypatch):
    class LazyReader(CpuEngine):
        calls = 0

        def read_pages(self) -> int:
            self.calls += 1
            return change(super().read_pages(), self.calls)

    result = bench.run_benchmark(config(), opener=lambda pages, *_: LazyReader(pages))
    assert any("the read gave 0x" in fault for fault in result.failures)
    changed = any("the answer of the read changed" in fault for fault in result.failures)
    assert changed == (change(0, 2) != change(0, 1))


def test_an_untouched_answer_passes_the_same_checks():
    result = bench.run_benchmark(config(), opener=opener_of(lambda answer, *_: answer))
    assert result.failures == ()


def test_rows_and_csv(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    arguments = ["--batch-sizes", "1,2,40", "--threads", "2", "--seed", "7", "--csv", str(path)]
    assert main([*SMALL, *arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    header, rows = read_csv(path)

    assert header["device"] == "cpu"
    assert header["instruction_set"] == instruction_set.supported()[0]
    expected = {
        "threads": "2",
        "pages": "70",
        "page_size": "40",
        "keys_per_query": "3",
        "iterations": "2",
        "warmup": "1",
        "seed": "7",
    }
    assert expected.items() <= header.items()
    assert list(rows[0]) == COLUMNS
    assert header["table"] == "random"

    assert data["ok"] is True
    assert data["failures"] == []
    assert data["config"]["batch_sizes"] == [1, 2, 40]
    assert [row["micro_batch_sizes"] for row in rows] == ["1", "2", "32+8"]
    pages = workload.random_pages(70, 40, 7)
    queries = workload.random_queries(70, 40, 3, 8)
    for row, entry in zip(rows, data["rows"], strict=True):
        q = int(row["q"])
        single, batch, read, sync = (
            float(row[name])
            for name in (
                "single_ms_per_batch",
                "batch_ms_per_batch",
                "read_ms",
                "sync_ms_per_batch",
            )
        )
        assert float(row["batch_vs_single_speedup"]) == pytest.approx(single / batch, rel=1e-4)
        assert float(row["single_qps"]) == pytest.approx(1e3 * q / single, rel=1e-4)
        assert float(row["batch_qps"]) == pytest.approx(1e3 * q / batch, rel=1e-4)
        answer = b"".join(workload.naive_answer(pages, query).tobytes() for query in queries[:q])
        wanted = hashlib.blake2b(answer, digest_size=16).hexdigest()
        assert row["checksum_single"] == row["checksum_batch"] == wanted
        assert row["correct"] == "true"
        assert entry["q"] == q
        assert entry["checksum_batch"] == wanted
        assert entry["batch_ms_per_batch"] == pytest.approx(batch, rel=1e-4)
        assert float(row["batch_vs_sync_speedup"]) == pytest.approx(sync / batch, rel=1e-4)
        assert entry["read_ms"] == pytest.approx(read, rel=1e-4)


def test_medians_quartiles_and_ratios_are_those_of_the_rounds(capsys):
    assert main([*SMALL, "--iterations", "9", "--batch-sizes", "1,5", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    for row, rounds in zip(data["rows"], data["rounds"], strict=True):
        assert rounds["q"] == row["q"]
        ms = {name: np.array(times) for name, times in rounds["ms"].items()}
        assert set(ms) == {"single", "batch", "sync", "read"}
        assert {len(times) for times in ms.values()} == {9}, "warm-up rounds do not count"
        for name in ("single", "batch", "sync", "read"):
            low, middle, high = np.quantile(ms[name], [0.25, 0.5, 0.75])
            assert row["read_ms" if name == "read" else f"{name}_ms_per_batch"] == middle
            assert (row[f"{name}_low_ms"], row[f"{name}_high_ms"]) == (low, high)
            assert row[f"{name}_spread"] == pytest.approx((high - low) / middle)
        for name in ("single", "batch", "sync"):
            assert row[f"{name}_vs_read"] == np.median(ms[name] / ms["read"])
        for ratio, name in (
            (ms["batch"] / ms["read"], "read"),
            (ms["single"] / ms["batch"], "single"),
        ):
            quartiles = row[f"batch_vs_{name}_low"], row[f"batch_vs_{name}_high"]
            assert quartiles == tuple(np.quantile(ratio, [0.25, 0.75]))


def test_the_text_for_people(capsys):
    assert main([*SMALL, "--batch-sizes", "2,8"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "70 pages of 40 bytes" in output.out
    assert output.out.count("equal") == 2
    assert "…" not in output.out, "no cell is cut short"
    assert max(map(len, output.out[: output.out.index("sync:")].splitlines())) <= 100


@pytest.mark.parametrize(
    "changes",
    [
        {"num_pages": 1, "page_size": 1, "keys_per_query": 1},
        {"num_pages": 513, "page_size": 65, "keys_per_query": 2, "threads": 3},
        {"num_pages": 9, "page_size": 200_001, "batch_sizes": (3,), "warmup": 0, "iterations": 1},
        *({"instruction_set": name} for name in instruction_set.supported()),
    ],
)
def test_odd_shapes(changes):
    result = bench.run_benchmark(config(**changes))
    assert result.failures == ()
    assert all(row.correct for row in result.rows)
    assert result.threads == changes.get("threads", result.threads)
    assert result.instruction_set == changes.get("instruction_set", result.instruction_set)


def test_the_seed_decides_the_answers():
    first, again, other = (
        [row.checksum_batch for row in bench.run_benchmark(config(seed=seed)).rows]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert not set(first) & set(other)


def test_progress_ends_at_the_total():
    everything: list[tuple[int, int, str]] = []
    bench.run_benchmark(config(), progress=lambda *call: everything.append(call))
    calls = [(done, total) for done, total, what in everything if what == "measuring"]
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert len(calls) == 9
    assert calls[-1] == (24, 24)
    assert {what for _, _, what in everything} == {"making pages", "checking", "measuring"}


def test_progress_is_told_a_hundred_times_at_most():
    calls: list[tuple[int, int]] = []
    array = workload.random_pages(1000, 8, 0)
    read = with_progress(
        lambda start, stop: array[start:stop], 1000, lambda *call: calls.append(call)
    )
    blocks = [read(start, start + 1) for start in range(1000)]
    assert (np.concatenate(blocks) == array).all()
    assert calls == [(done, 1000) for done in range(0, 1000, 10)]


def test_an_interrupted_run_leaves_its_rows(tmp_path, monkeypatch, capsys):
    def interrupt(answer: Answer, queries: list[Query], width: int | None, calls: int) -> Answer:
        if len(queries) == 2:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setitem(bench.OPENERS, "cpu", opener_of(interrupt))
    path = tmp_path / "rows.csv"
    assert main([*SMALL, "--batch-sizes", "1,2,4", "--csv", str(path)]) == 130
    assert [row["q"] for row in read_csv(path)[1]] == ["1"]
    assert capsys.readouterr().err == "morphogen: interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pages", "0"], "num_pages must be in 1..2**40, not 0"),
        (["--page-size", "0"], "page_size must be 1 or more, not 0"),
        (["--keys-per-query", "4"], "keys_per_query must be in 1..3, not 4"),
        (["--iterations", "0"], "iterations must be 1 or more, not 0"),
        (["--warmup", "-1"], "warmup must be 0 or more, not -1"),
        (["--seed", "-1"], "seed must be 0 or more, not -1"),
        (["--batch-sizes", "1,0"], "a batch size must be 1 or more, not 0"),
        (["--batch-sizes", "2,2"], "must all be different, not (2, 2)"),
        (["--batch-sizes", "1,x"], "must be whole numbers with commas between, not '1,x'"),
        (["--batch-sizes", ""], "must be whole numbers with commas between, not ''"),
        (["--pages", "ten"], "must be a whole number or max, not 'ten'"),
        (["--pages", "max"], "as many pages as fit are measured only on one GPU"),
        (["--pages-on", "device"], "pages are made on the device only where that is one GPU"),
        (["--pages-on", "paper"], "invalid choice: 'paper'"),
        (["--phases"], "phases are measured only on one GPU"),
        (["--threads", "0"], "threads must be in 1..1024, not 0"),
        (["--instruction-set", "abacus"], "not 'abacus'"),
        (["--device", "tpu"], "or names such as 'cuda:0,cuda:2', not 'tpu'"),
        (
            ["--device", "cuda:"],
            "device must be 'auto', 'cpu', 'cuda', 'cuda:N' or 'cuda:all', or ",
        ),
        (["--device", "cpu,tpu"], "each of several devices must be 'cpu' or 'cuda:N', not 'tpu'"),
        (["--device", "cpu,cpu"], "2 devices cannot share 70 pages"),
        (["--device", "cuda:99"], "cuda:99 "),
        (["--csv", "no/such/folder.csv"], "no/such/folder.csv: No such file or directory"),
        (["--csv", "."], ".: Is a directory"),
        (["--pages", str(2**40), "--page-size", "4096"], "4.0 PiB of memory"),
    ],
)
def test_bad_input(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert output.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--csv", "--plot"])
def test_a_full_disk_is_named(option, tmp_path, monkeypatch, capsys):
    if option == "--plot":
        pytest.importorskip("matplotlib", reason="needs matplotlib (extra plot)")
    path = tmp_path / "file.svg"
    path.symlink_to("/dev/full")
    assert main([*SMALL, "--batch-sizes", "1", option, str(path)]) == 2
    assert capsys.readouterr().err == f"morphogen: {path}: No space left on device\n"


def test_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "available_memory", lambda: 70 * 40)
    path = tmp_path / "rows.csv"
    assert main([*SMALL, "--batch-sizes", "1", "--csv", str(path)]) == 2
    assert "need 3.3 KiB of memory, and only 2.7 KiB are available" in capsys.readouterr().err
    assert not path.exists()


def test_library_errors():
    for device in ("tpu", "auto", "cuda", "cuda:x"):
        with pytest.raises(ValueError, match=rf"must be 'cpu' or 'cuda:N', or .* not '{device}'$"):
            config(device=device)
    with pytest.raises(ValueError, match="must be 'host' or 'device', not 'moon'"):
        config(pages_on="moon")
    with pytest.raises(ValueError, match="at least one entry, not 0"):
        config(batch_sizes=())


def test_of_many_pages_the_last_query_of_each_batch_is_checked_against_the_naive_answer(
    monkeypatch,
):
    def swap(answer: Answer, queries: list[Query], *_: object) -> Answer:
        return edited(answer, answer.pages[::-1].copy()) if len(queries) > 1 else answer

    monkeypatch.setattr(bench, "_MAX_NAIVE_WORK", 0)
    result = bench.run_benchmark(config(batch_sizes=(2, 5)), opener=opener_of(swap))
    for q, wrong in ((2, 1), (5, 4)):
        naive = f"q = {q}: the batch differs from the naive XOR of the pages in query {wrong}"
        assert naive in result.failures


def test_every_column_is_documented():
    text = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text(
        encoding="utf-8"
    )
    assert [column for column in COLUMNS if f"`{column}`" not in text] == []
