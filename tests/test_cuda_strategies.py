"""Strategies on a GPU, over the stand-in driver: lanes, also those that are opened late."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import morphogen as mg
from conftest import naive_answers, random_rows, random_table
from morphogen.engine.strategy import Strategy
from standin_driver import StandIn

TABLE = random_table(150, 40)
BATCH = mg.make_queries(random_rows(9, 3, len(TABLE)), len(TABLE))[0]
NAIVE = naive_answers(TABLE, BATCH)


def open_gpu(table: Any = TABLE) -> Any:
    return mg.open_engine(mg.PageMatrix(table), device="cuda:0")


def launches_and_waits(gpu: StandIn) -> str:
    """The order of a batch's launches (L) and waits (w)."""
    letters = {"cuLaunchKernel": "L", "cuGraphLaunch": "L", "cuStreamSynchronize": "w"}
    return "".join(letters.get(entry.function, "") for entry in gpu.log())


def test_the_default_is_chunks_of_two_in_two_lanes(gpu: StandIn) -> None:
    with open_gpu() as engine:
        assert engine.default_strategy == Strategy(width=2, lanes=2, graph=False)
        assert engine.max_micro_batch == 2
        assert engine.answer(BATCH).micro_batch_sizes == (2, 2, 2, 2, 1)


# Lanes


@pytest.mark.parametrize(
    ("lanes", "order"), [(1, "LwLwLwLwLw"), (2, "LLwLwLwLww"), (4, "LLLLwLwwww")]
)
def test_as_many_chunks_are_under_way_as_there_are_lanes(
    gpu: StandIn, lanes: int, order: str
) -> None:
    with open_gpu() as engine:
        engine.answer(BATCH, lanes=lanes)  # opens what is missing
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
