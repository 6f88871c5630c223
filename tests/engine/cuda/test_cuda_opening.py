"""What an engine on a GPU is opened for: lanes, graphs, and a counter of its chunks' phases."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import pytest

import morphogen as mg
from device_shares import ARRAY as SHARED, assert_answers as assert_shared_answers
from morphogen.engine.cuda import CudaEngine
from morphogen.engine.cuda.phases import PhaseCounter, PhaseSums
from small_gpu_engine import ARRAY, BATCH, PAGES, assert_answers
from standin_driver import StandIn


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_as_many_chunks_are_under_way_as_it_was_opened_for(gpu: StandIn, lanes: int) -> None:
    with mg.open_engine(PAGES, "cuda", lanes=lanes) as engine:
        assert engine.max_in_flight == engine.default_strategy.lanes == lanes
        assert_answers(engine)
        assert len({launch.stream for launch in gpu.launches()}) == min(lanes, 3)
        with engine.next_epoch([2], ARRAY[:1], 1) as after:
            assert after.max_in_flight == lanes
        with mg.MicroBatcher(engine) as batcher:
            assert batcher.max_in_flight == lanes


@pytest.mark.parametrize("width", [None, 4])
def test_an_engine_that_was_opened_for_graphs_replays_them(gpu: StandIn, width: int | None) -> None:
    with mg.open_engine(PAGES, "cuda", graph=True) as engine:
        assert engine.default_strategy.graph
        gpu.reset_log()
        assert_answers(engine, max_micro_batch=width)
        assert gpu.calls()["cuGraphLaunch"] == (2 if width else 3)
        assert gpu.calls()["cuLaunchKernel"] == 0


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ("cuda", {"lanes": 3}, "^lanes must be 1, 2 or 4 on cuda:0, not 3$"),
        ("cpu", {"lanes": 2}, "^lanes and graph are for a GPU, and 'cpu' is none here$"),
        ("cpu", {"graph": True}, "^lanes and graph are for a GPU, and 'cpu' is none here$"),
        ("cpu,cpu", {"lanes": 2}, "^lanes and graph are for a GPU, and 'cpu,cpu' is none here$"),
        ("auto", {"lanes": 2, "threads": 1}, "^lanes and graph are for a GPU, and 'auto' is none"),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_lanes_and_graphs_are_for_a_gpu(device: str, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mg.open_engine(PAGES, device, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": 2}, "^lanes and graph are for a GPU, and none can be used: "),
        ({"layout": "bits"}, "^layout='bits' is for a GPU, and none can be used: "),
    ],
)
def test_where_no_gpu_can_be_chosen_an_option_of_gpus_says_why(
    gpu: StandIn, options: Any, message: str
) -> None:
    gpu.set(devices=0)
    with pytest.raises(mg.DeviceUnavailableError, match=message):
        mg.open_engine(PAGES, "auto", **options)


def test_the_phases_of_every_chunk_are_counted(gpu: StandIn) -> None:
    phases = PhaseCounter()
    with mg.open_engine(PAGES, "cuda", phases=phases) as engine:
        assert phases.sums() == {"cuda:0": PhaseSums()}
        assert_answers(engine)
        first = phases.sums()["cuda:0"]
        assert first.chunks == 3
        assert all(seconds > 0 for seconds in astuple(first))
        with engine.next_epoch([2], ARRAY[:1], 1) as after:  # they share the device's pages
            after.answer(BATCH, max_micro_batch=1, graph=True)
            assert_answers(engine, max_micro_batch=8)
        assert isinstance(engine, CudaEngine)
        engine.time_phases(BATCH)  # which gives the times to its caller
        with pytest.raises(mg.KeyDomainError):
            engine.answer(mg.make_queries([[1]], 7)[0])
    with mg.open_engine(PAGES, "cuda", phases=phases) as engine:
        assert_answers(engine)
    last = phases.sums()["cuda:0"]
    assert last.chunks == 3 + 5 + 1 + 3
    assert all(now > before for now, before in zip(astuple(last), astuple(first), strict=True))


def test_a_chunk_that_fails_is_not_counted(gpu: StandIn) -> None:
    phases = PhaseCounter()
    with mg.open_engine(PAGES, "cuda", phases=phases) as engine:
        gpu.inject("cuEventElapsedTime", "CUDA_ERROR_UNKNOWN")
        with pytest.raises(mg.DeviceError, match=r"^cuEventElapsedTime failed"):
            engine.answer(BATCH[:1])
        assert phases.sums() == {"cuda:0": PhaseSums()}
        assert_answers(engine)
        assert phases.sums()["cuda:0"].chunks == 3


def test_without_a_counter_no_event_is_recorded(gpu: StandIn) -> None:
    with mg.open_engine(PAGES, "cuda") as engine:
        gpu.reset_log()
        assert_answers(engine)
        assert gpu.calls()["cuEventRecord"] == 0


def test_each_of_several_gpus_is_counted(gpu: StandIn) -> None:
    gpu.set(devices=2)
    phases = PhaseCounter()
    with mg.open_engine(mg.PageMatrix(SHARED), "cuda:all", lanes=1, phases=phases) as engine:
        assert_shared_answers(engine, SHARED)
    sums = phases.sums()
    assert list(sums) == ["cuda:0", "cuda:1"]
    assert sums["cuda:0"].chunks == sums["cuda:1"].chunks > 0
