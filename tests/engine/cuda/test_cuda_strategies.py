"""Strategies on a GPU, over the stand-in driver: wide chunks, lanes, graph replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import morphogen as mg
from morphogen.engine.strategy import Strategy
from naive import naive_answers, open_engine, random_pages, random_rows
from standin_driver import StandIn

PAGES = random_pages(150, 40)
BATCH = mg.make_queries(random_rows(9, 3, len(PAGES)), len(PAGES))[0]
NAIVE = naive_answers(PAGES, BATCH)


def open_gpu(array: Any = PAGES) -> Any:
    return mg.open_engine(mg.PageMatrix(array), device="cuda:0")


def launches_and_waits(gpu: StandIn) -> str:
    """The order of a batch's launches (L) and waits (w)."""
    letters = {"cuLaunchKernel": "L", "cuGraphLaunch": "L", "cuStreamSynchronize": "w"}
    return "".join(letters.get(entry.function, "") for entry in gpu.log())


def test_the_default_is_chunks_of_two_in_two_lanes(gpu: StandIn) -> None:
    with open_gpu() as engine:
        assert engine.default_strategy == Strategy(width=2, lanes=2, graph=False)
        assert engine.max_micro_batch == 2
        assert engine.answer(BATCH).micro_batch_sizes == (2, 2, 2, 2, 1)


@pytest.mark.parametrize("keys", [1, 2, 3])
@pytest.mark.parametrize(("page_size", "num_pages"), [(40, 530), (600, 100), (4096, 60)])
def test_every_strategy_answers_as_the_cpu_does(
    gpu: StandIn, page_size: int, num_pages: int, keys: int
) -> None:
    array = random_pages(num_pages, page_size)
    batch = mg.make_queries(random_rows(9, keys, num_pages), num_pages)[1]
    with open_gpu(array) as engine, open_engine(array) as reference:
        expected = reference.answer(batch).pages
        assert np.array_equal(expected, naive_answers(array, batch))
        # Twice in a row: a strategy would add the remains of another in the buffers.
        for width in (1, 2, 3, 4, 8, 8, 5, 2):
            for lanes in (1, 2, 4):
                graph = (width + lanes) % 2 == 0
                answer = engine.answer(batch, max_micro_batch=width, lanes=lanes, graph=graph)
                assert np.array_equal(answer.pages, expected)
                sizes = [stop - start for start, stop in mg.planner.micro_batch_ranges(9, width)]
                assert list(answer.micro_batch_sizes) == sizes


# Wide chunks


@pytest.mark.parametrize("keys", [1, 2, 3])
@pytest.mark.parametrize("width", range(1, 9))
def test_a_chunk_takes_the_next_larger_kernel(gpu: StandIn, width: int, keys: int) -> None:
    batch = mg.make_queries(random_rows(11, keys, len(PAGES)), len(PAGES))[0]
    sizes = [width] * (11 // width) + ([11 % width] if 11 % width else [])
    kernels = [next(n for n in (*range(1, 7), 12, 24) if n >= size * keys) for size in sizes]
    with open_gpu() as engine:
        answer = engine.answer(batch, max_micro_batch=width)
        assert np.array_equal(answer.pages, naive_answers(PAGES, batch))
    assert [launch.kernel for launch in gpu.launches()] == [f"morphogen_scan_{n}" for n in kernels]
    threads = {12: 512, 24: 256}
    assert [launch.block[0] for launch in gpu.launches()] == [threads.get(n, 1024) for n in kernels]


def test_wide_chunks_run_only_where_they_are_asked_for(gpu: StandIn) -> None:
    with open_gpu() as engine:
        assert engine.widest_micro_batch == 8
        engine.answer(BATCH, max_micro_batch=8)
        assert engine.answer(BATCH).micro_batch_sizes == (2, 2, 2, 2, 1)
        with pytest.raises(ValueError, match=r"^max_micro_batch must be in 1\.\.8 on"):
            engine.answer(BATCH, max_micro_batch=9)
        with mg.MicroBatcher(engine) as batcher:
            assert batcher.max_micro_batch == 2
        with mg.MicroBatcher(engine, max_micro_batch=4) as batcher:
            assert np.array_equal(batcher.submit(BATCH[0]).result().pages, NAIVE[:1])


def test_room_for_wide_chunks_is_made_when_a_batch_first_needs_it(gpu: StandIn) -> None:
    with open_gpu() as engine:
        before = gpu.live()
        engine.answer(BATCH, max_micro_batch=2)
        assert gpu.live() == before
        engine.answer(BATCH[:4], max_micro_batch=4)  # one chunk: one lane
        more = gpu.live()["device_bytes"] - before["device_bytes"]
        assert more == (12 - 6) * 48
        engine.answer(BATCH, max_micro_batch=8)
        most = gpu.live()
        assert most["device_memory"] == before["device_memory"]
        engine.answer(BATCH, max_micro_batch=8)
        engine.read_pages()
        engine.answer(BATCH)
        assert gpu.live() == most


@pytest.mark.parametrize("call", ["cuMemAlloc", "cuMemHostAlloc", "cuMemsetD8Async"])
def test_no_room_for_wide_chunks_leaves_the_engine_in_use(gpu: StandIn, call: str) -> None:
    with open_gpu() as engine:
        gpu.inject(call, "CUDA_ERROR_OUT_OF_MEMORY")
        with pytest.raises(mg.DeviceOutOfMemoryError, match=f"^{call} failed"):
            engine.answer(BATCH, max_micro_batch=8)
        assert gpu.launches() == []
        assert np.array_equal(engine.answer(BATCH).pages, NAIVE)
        assert np.array_equal(engine.answer(BATCH, max_micro_batch=8).pages, NAIVE)


def test_phases_of_wide_chunks(gpu: StandIn) -> None:
    with open_gpu() as engine:
        answer, times = engine.time_phases(BATCH, max_micro_batch=8)
        assert np.array_equal(answer.pages, NAIVE)
        assert [chunk.queries for chunk in times.chunks] == [8, 1]


# Graphs


def test_a_graph_is_made_once_a_lane_and_replayed_for_every_chunk(gpu: StandIn) -> None:
    with open_gpu() as engine:
        assert gpu.live()["graphs"] == 0
        calls = gpu.calls()
        assert np.array_equal(engine.answer(BATCH, graph=True).pages, NAIVE)
        made = gpu.calls() - calls
        assert made["cuGraphInstantiateWithFlags"] == made["cuGraphAddKernelNode"] == 2
        assert made["cuGraphLaunch"] == made["cuGraphExecKernelNodeSetParams"] == 5
        assert made["cuLaunchKernel"] == 0
        calls = gpu.calls()
        assert np.array_equal(engine.answer(BATCH, graph=True).pages, NAIVE)
        assert gpu.calls() - calls == {
            "cuCtxPushCurrent": 1,
            "cuGraphExecKernelNodeSetParams": 5,
            "cuGraphLaunch": 5,
            "cuStreamSynchronize": 5,
            "cuCtxPopCurrent": 1,
        }
        assert gpu.live()["graphs"] == gpu.live()["graph_execs"] == 2
        # A batch without a graph is launched.
        calls = gpu.calls()
        assert np.array_equal(engine.answer(BATCH).pages, NAIVE)
        assert (gpu.calls() - calls)["cuGraphLaunch"] == 0


def test_a_replay_keeps_its_lane_busy_as_a_launch_does(gpu: StandIn) -> None:
    with open_gpu() as engine:
        engine.answer(BATCH, graph=True)
        gpu.reset_log()
        engine.answer(BATCH, graph=True)
        assert launches_and_waits(gpu) == "LLwLwLwLww"


@pytest.mark.parametrize("schedule", ["late", "eager", "random"])
def test_replays_are_done_whenever_the_device_likes(gpu: StandIn, schedule: Any) -> None:
    gpu.set(schedule=schedule, seed=3)
    with open_gpu() as engine:
        for lanes in (4, 1, 2):
            assert np.array_equal(engine.answer(BATCH, graph=True, lanes=lanes).pages, NAIVE)


def test_graphs_are_freed_before_the_module_of_their_kernels(gpu: StandIn) -> None:
    with open_gpu() as engine:
        engine.answer(BATCH, graph=True)
        gpu.reset_log()
    freed = [entry.function for entry in gpu.log()]
    wanted = ["cuGraphExecDestroy", "cuGraphDestroy"] * 2 + ["cuModuleUnload"]
    assert [call for call in freed if call in wanted] == wanted


GRAPH_CALLS = [
    "cuGraphCreate",
    "cuGraphAddKernelNode",
    "cuGraphInstantiateWithFlags",
    "cuGraphExecKernelNodeSetParams",
    "cuGraphLaunch",
]


@pytest.mark.parametrize("call", GRAPH_CALLS)
@pytest.mark.parametrize("number", [1, 2])
def test_a_graph_call_that_fails_leaves_the_engine_in_use(
    gpu: StandIn, call: str, number: int
) -> None:
    with open_gpu() as engine:
        gpu.inject(call, "CUDA_ERROR_UNKNOWN", call=number)
        with pytest.raises(mg.DeviceError, match=f"^{call} failed: CUDA_ERROR_UNKNOWN"):
            engine.answer(BATCH, graph=True)
        assert not engine.closed
        for graph in (True, False, True):
            assert np.array_equal(engine.answer(BATCH, graph=graph).pages, NAIVE)


@pytest.mark.parametrize("number", [1, 3])
def test_a_replay_whose_kernel_fails_closes_the_engine(gpu: StandIn, number: int) -> None:
    engine = open_gpu()
    gpu.inject("cuGraphLaunch", "CUDA_ERROR_LAUNCH_FAILED", call=number, late=True)
    with pytest.raises(mg.DeviceError, match=r"^cuStreamSynchronize failed: CUDA_ERROR_LAUNCH_F"):
        engine.answer(BATCH, graph=True)
    with pytest.raises(mg.EngineClosedError, match="its device failed"):
        engine.answer(BATCH)
    gpu.reset()


def test_a_device_that_is_lost_in_a_replay(gpu: StandIn) -> None:
    engine = open_gpu()
    gpu.inject("cuGraphLaunch", "CUDA_ERROR_ECC_UNCORRECTABLE", device_lost=True)
    with pytest.raises(mg.DeviceError, match=r"^cuGraphLaunch failed: CUDA_ERROR_ECC"):
        engine.answer(BATCH, graph=True)
    with pytest.raises(mg.EngineClosedError, match="its device failed: cuGraphLaunch failed"):
        engine.answer(BATCH)
    gpu.clear()
    gpu.reset()


# Lanes


@pytest.mark.parametrize(
    ("lanes", "order"), [(1, "LwLwLwLwLw"), (2, "LLwLwLwLww"), (4, "LLLLwLwwww")]
)
def test_as_many_chunks_are_under_way_as_there_are_lanes(
    gpu: StandIn, lanes: int, order: str
) -> None:
    with open_gpu() as engine:
        engine.answer(BATCH, lanes=lanes)  # opens the missing ones
        gpu.reset_log()
        answer = engine.answer(BATCH, lanes=lanes)
        assert launches_and_waits(gpu) == order
        assert np.array_equal(answer.pages, NAIVE)


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("total", [0, 1, 2, 3, 7, 9])
def test_batches_of_fewer_chunks_than_lanes(gpu: StandIn, lanes: int, total: int) -> None:
    with open_gpu() as engine:
        for _ in range(2):
            answer = engine.answer(BATCH[:total], lanes=lanes, max_micro_batch=1)
            assert np.array_equal(answer.pages, NAIVE[:total])
            assert answer.micro_batch_sizes == (1,) * total


def test_lanes_are_opened_when_a_batch_first_needs_them(gpu: StandIn) -> None:
    with open_gpu() as engine:
        before = gpu.live()["streams"]
        engine.answer(BATCH[:4], lanes=4)  # two chunks
        assert gpu.live()["streams"] == before
        engine.answer(BATCH[:6], lanes=4)  # three
        assert gpu.live()["streams"] == before + 1
        engine.answer(BATCH, lanes=4)
        assert gpu.live()["streams"] == before + 2
        calls = gpu.calls()
        engine.answer(BATCH, lanes=4)
        assert set(gpu.calls() - calls) <= {
            *("cuCtxPushCurrent", "cuCtxPopCurrent", "cuLaunchKernel", "cuStreamSynchronize")
        }


@pytest.mark.parametrize("lanes", [0, 3, 5, 8])
def test_a_number_of_lanes_that_it_does_not_have(gpu: StandIn, lanes: int) -> None:
    with open_gpu() as engine:
        with pytest.raises(ValueError, match=rf"^lanes must be 1, 2 or 4 on cuda:0, not {lanes}$"):
            engine.answer(BATCH, lanes=lanes)
        assert gpu.launches() == []


def test_no_memory_for_more_lanes_leaves_the_engine_in_use(gpu: StandIn) -> None:
    with open_gpu() as engine:
        gpu.set_free_memory(100)
        with pytest.raises(mg.DeviceOutOfMemoryError, match=r"bytes asked for, 100 free$"):
            engine.answer(BATCH, lanes=4)
        assert gpu.launches() == []
        assert np.array_equal(engine.answer(BATCH).pages, NAIVE)
        gpu.set_free_memory(1 << 20)
        assert np.array_equal(engine.answer(BATCH, lanes=4).pages, NAIVE)
