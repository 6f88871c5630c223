"""The GPU engine's answers, over the stand-in driver: the CPU engine's, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
import morphogen.engine.cuda.device_pages as device_pages
from naive import (
    Bytes,
    assert_guards,
    guarded,
    naive_answers,
    open_engine,
    random_pages,
    random_rows,
)
from standin_driver import StandIn


def open_gpu(array: Bytes | mg.PageMatrix, **options: Any) -> Any:
    pages = array if isinstance(array, mg.PageMatrix) else mg.PageMatrix(array)
    return mg.open_engine(pages, device="cuda:0", **options)


def queries_for(
    num_pages: int, total: int, keys: int, seed: int = 0
) -> tuple[list[mg.Query], list[mg.Query]]:
    return mg.make_queries(random_rows(total, keys, num_pages, seed), num_pages)


# Each page size with a number of pages that no unit of work divides, over one leaf of the tree
# where the pages are small enough to be emulated quickly.
SHAPES = [
    (1, 1300),
    (16, 1537),
    (32, 1025),
    (48, 1100),
    (496, 600),
    (512, 600),
    (1000, 555),
    (4096, 200),
    (4112, 70),
    (16384, 70),
]


@pytest.mark.parametrize("keys", [1, 2, 3])
@pytest.mark.parametrize(("page_size", "num_pages"), SHAPES)
def test_answers_equal_the_cpu_engines(
    gpu: StandIn, page_size: int, num_pages: int, keys: int
) -> None:
    array = random_pages(num_pages, page_size)
    batches = queries_for(num_pages, 3, keys)
    with open_gpu(array) as engine, open_engine(array) as reference:
        answers = [engine.answer(batch) for batch in batches]
        for answer, batch in zip(answers, batches, strict=True):
            assert np.array_equal(answer.pages, reference.answer(batch).pages)
            assert np.array_equal(answer.pages, naive_answers(array, batch))
            single = engine.answer(batch, max_micro_batch=1)
            assert np.array_equal(single.pages, answer.pages)
            assert single.micro_batch_sizes == (1, 1, 1)
        rows = random_rows(3, keys, num_pages)
        assert np.array_equal(mg.reconstruct(*answers), array[rows])
    blocks = {launch.grid[0] for launch in gpu.launches()}
    assert blocks == {engine.grid.blocks}


@pytest.mark.parametrize("num_pages", [1, 2, 31, 32, 33, 63, 64, 65, 511, 512, 513, 1023, 2048])
def test_any_number_of_pages(gpu: StandIn, num_pages: int) -> None:
    array = random_pages(num_pages, 520)
    batch = queries_for(num_pages, 2, 3)[0]
    with open_gpu(array) as engine:
        assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))


@pytest.mark.parametrize("multiprocessors", [1, 3, 7])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_blocks_in_any_order(gpu: StandIn, multiprocessors: int, order: int) -> None:
    gpu.set(multiprocessors=multiprocessors, seed=order)
    array = random_pages(700, 4100)
    batch = queries_for(700, 2, 3)[order % 2]
    with open_gpu(array) as engine:
        assert engine.grid.tiles == 2
        assert engine.grid.blocks > 1
        assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))


@pytest.mark.parametrize("compute_capability", [80, 86, 89, 90, 120])
def test_one_ptx_runs_on_every_device(gpu: StandIn, compute_capability: int) -> None:
    gpu.set(compute_capability=compute_capability)
    array = random_pages(70, 64)
    batch = queries_for(70, 1, 3)[0]
    with open_gpu(array) as engine:
        assert engine.ptx == "compute_80"
        assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))


# Chunks


@pytest.mark.parametrize("total", [0, 1, 2, 3, 4, 5, 8, 9])
def test_a_launch_never_has_more_than_two_queries(gpu: StandIn, total: int) -> None:
    array = random_pages(100, 32)
    batch = queries_for(100, total, 3)[0]
    with open_gpu(array) as engine:
        assert engine.max_micro_batch == 2
        answer = engine.answer(batch)
    sizes = [2] * (total // 2) + [1] * (total % 2)
    assert answer.micro_batch_sizes == tuple(sizes)
    assert [launch.kernel for launch in gpu.launches()] == [
        f"morphogen_scan_{3 * size}" for size in sizes
    ]
    assert np.array_equal(answer.pages, naive_answers(array, batch))


def test_answers_stand_in_request_order(gpu: StandIn) -> None:
    # Single bits tell which page an answer is: both parties' sum is the page that was asked for.
    array = np.arange(600, dtype="<u2").view(np.uint8).reshape(600, 2)
    rows = np.random.default_rng(0).permutation(600)[:21].reshape(7, 3)
    batches = mg.make_queries(rows, 600)
    with open_gpu(array) as engine:
        pages = mg.reconstruct(*[engine.answer(batch) for batch in batches])
    assert np.array_equal(pages.view("<u2")[..., 0], rows)


def test_work_is_done_whenever_the_device_likes(gpu: StandIn) -> None:
    array = random_pages(300, 48)
    batch = queries_for(300, 9, 2)[1]
    naive = naive_answers(array, batch)
    for schedule in ("late", "eager", "random"):
        gpu.set(schedule=schedule, seed=7)
        with open_gpu(array) as engine:
            assert np.array_equal(engine.answer(batch).pages, naive)


# Buffers


def test_buffers_are_used_again_whatever_they_held(gpu: StandIn) -> None:
    array = random_pages(300, 4096)
    with open_gpu(array) as engine:
        # Many keys, then fewer, then many: a later launch would add the remains of an earlier one.
        for seed, (total, keys) in enumerate([(4, 3), (1, 1), (3, 2), (2, 3), (1, 3), (4, 3)]):
            batch = queries_for(300, total, keys, seed)[seed % 2]
            assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))


def test_reading_and_answering_share_their_buffers(gpu: StandIn) -> None:
    array = random_pages(300, 4096)
    batch = queries_for(300, 2, 3)[0]
    with open_gpu(array) as engine:
        for _ in range(2):
            read = engine.read_pages()
            assert read == np.bitwise_xor.reduce(array.view("<u8"), axis=None)
            assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))


@pytest.mark.parametrize("page_size", [33, 4096])
def test_nothing_beyond_out_is_written(gpu: StandIn, page_size: int) -> None:
    array = random_pages(90, page_size)
    batch = queries_for(90, 3, 2)[0]
    out, memory = guarded((3, 2, page_size))
    with open_gpu(array) as engine:
        answer = engine.answer(batch, out=out)
    assert answer.pages is out
    assert np.array_equal(out, naive_answers(array, batch))
    assert_guards(out, memory)


def test_answers_without_out_are_their_own(gpu: StandIn) -> None:
    array = random_pages(90, 64)
    with open_gpu(array) as engine:
        batches = [queries_for(90, 2, 3, seed)[0] for seed in range(3)]
        answers = [engine.answer(batch) for batch in batches]
    for answer, batch in zip(answers, batches, strict=True):
        assert np.array_equal(answer.pages, naive_answers(array, batch))


# Upload


@pytest.mark.parametrize("page_size", [7, 16, 40, 64])
@pytest.mark.parametrize("piece", [16, 48, 1000])
def test_pages_travel_in_pieces(
    gpu: StandIn, monkeypatch: pytest.MonkeyPatch, page_size: int, piece: int
) -> None:
    monkeypatch.setattr(device_pages, "PIECE_BYTES", piece)
    array = random_pages(77, page_size)
    batch = queries_for(77, 2, 3)[0]
    total = 77 * device_pages.padded_size(page_size)
    for schedule in ("late", "eager", "random"):
        gpu.set(schedule=schedule)
        seen: list[tuple[int, int]] = []
        with open_gpu(array, progress=lambda *at, seen=seen: seen.append(at)) as engine:
            assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))
        assert seen == [(min(at, total), total) for at in range(piece, total + piece, piece)]


@pytest.mark.parametrize("length", [5, 40, 41, 479, 480, 481])
def test_a_mapped_file_with_a_short_last_page(gpu: StandIn, tmp_path: Path, length: int) -> None:
    path = tmp_path / "pages"
    data = np.random.default_rng(length).integers(256, size=length, dtype=np.uint8)
    path.write_bytes(data.tobytes())
    pages = mg.PageMatrix.open(path, page_size=40)
    array = np.zeros((pages.num_pages, 40), dtype=np.uint8)
    array.reshape(-1)[:length] = data
    batch = queries_for(pages.num_pages, 2, 3)[1]
    with open_gpu(pages) as engine:
        assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))


def test_progress_that_fails_ends_the_upload(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_pages, "PIECE_BYTES", 64)

    def fail(done: int, total: int) -> None:
        if done > 128:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match=r"^enough$"):
        open_gpu(random_pages(77, 16), progress=fail)


# Launches and their work


def test_a_chunk_costs_one_launch_and_one_wait(gpu: StandIn) -> None:
    batch = queries_for(100, 2, 3)[0]
    with open_gpu(random_pages(100, 64)) as engine:
        engine.answer(batch)
        before = gpu.calls()
        engine.answer(batch)
        calls = gpu.calls() - before
    assert calls == {
        "cuCtxPushCurrent": 1,
        "cuLaunchKernel": 1,
        "cuStreamSynchronize": 1,
        "cuCtxPopCurrent": 1,
    }


def test_two_chunks_are_under_way_at_a_time(gpu: StandIn) -> None:
    batch = queries_for(100, 6, 1)[0]
    with open_gpu(random_pages(100, 64)) as engine:
        gpu.reset_log()
        engine.answer(batch)
        order = [entry.function for entry in gpu.log() if not entry.function.startswith("cuCtx")]
    launch, wait = "cuLaunchKernel", "cuStreamSynchronize"
    assert order == [launch, launch, wait, launch, wait, wait]


def test_phases_are_timed_on_request(gpu: StandIn) -> None:
    array = random_pages(100, 64)
    batch = queries_for(100, 5, 3)[0]
    with open_gpu(array) as engine:
        answer, times = engine.time_phases(batch)
        assert np.array_equal(answer.pages, naive_answers(array, batch))
        assert [chunk.queries for chunk in times.chunks] == [2, 2, 1]
        for chunk in times.chunks:
            for phase in (chunk.submit, chunk.device, chunk.wait, chunk.copy):
                assert 0 <= phase <= times.total
        assert 0 < times.prepare < times.total
        _, single = engine.time_phases(batch, max_micro_batch=1)
        assert [chunk.queries for chunk in single.chunks] == [1] * 5
        # One lane at a time, or a chunk's time would hold its wait for the other lane's.
        gpu.reset_log()
        engine.time_phases(batch)
        steps = {"cuLaunchKernel", "cuStreamSynchronize"}
        order = [entry.function for entry in gpu.log() if entry.function in steps]
        assert order == ["cuLaunchKernel", "cuStreamSynchronize"] * 3
        empty, nothing = engine.time_phases([])
        assert empty.pages.shape == (0, 3, 64)
        assert nothing.chunks == ()


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range(gpu: StandIn, seed: int) -> None:
    from morphogen.engine.cuda import CudaEngine

    with pytest.raises(ValueError, match=r"^generate must be in 0\.\.2\*\*64 - 1, not"):
        CudaEngine(mg.PageMatrix(random_pages(5, 5)), generate=seed)


def test_pages_made_on_the_device(gpu: StandIn) -> None:
    from morphogen.engine.cuda import CudaEngine

    num_pages, page_size, seed = 50, 20, 9
    unread = np.zeros((num_pages, page_size), dtype=np.uint8)
    words = np.arange(1, num_pages * 4 + 1, dtype=np.uint64)  # each page has 4 words with padding
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + words * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    array = z.astype("<u8").view(np.uint8).reshape(num_pages, 32)[:, :page_size].copy()
    batch = queries_for(num_pages, 2, 3)[0]
    with CudaEngine(mg.PageMatrix(unread), generate=seed) as engine:
        assert np.array_equal(engine.answer(batch).pages, naive_answers(array, batch))
        padded = np.zeros((num_pages, 32), dtype=np.uint8)
        padded[:, :page_size] = array
        assert engine.read_pages() == np.bitwise_xor.reduce(padded.view("<u8"), axis=None)
