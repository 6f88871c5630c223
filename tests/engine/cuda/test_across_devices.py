"""One engine over several devices of the stand-in driver: the answers, and who has which pages."""

from __future__ import annotations

from typing import Any

import pytest

import morphogen as mg
from device_shares import ARRAY, SIZE, assert_answers, open_devices
from engine_processes import EXIT, FORK, assert_ends_well
from morphogen.engine.cpu import CpuEngine
from morphogen.engine.cuda import CudaEngine
from morphogen.engine.sharded import ShardedEngine
from standin_driver import StandIn

BESIDE = (16 << 20) + 16 * SIZE  # bytes that a GPU needs besides its pages
LEAF = 512 * SIZE


def test_cpu_engines_share_the_threads() -> None:
    for threads, teams in ((5, [3, 2]), (2, [1, 1])):
        with mg.open_engine(
            mg.PageMatrix(ARRAY), "cpu,cpu", threads=threads, instruction_set="baseline"
        ) as engine:
            assert isinstance(engine, ShardedEngine)
            parts: list[Any] = [shard.engine for (shard,) in engine.shards]  # type: ignore[attr-defined]
            assert [part.threads for part in parts] == teams
            assert {part.instruction_set for part in parts} == {"baseline"}
            assert_answers(engine)
    with pytest.raises(ValueError, match=r"^threads of 2 engines on the CPU must be .* not 1$"):
        mg.open_engine(mg.PageMatrix(ARRAY), "cpu,cpu", threads=1)


@pytest.mark.parametrize("script", [EXIT, FORK], ids=["exit", "fork"])
def test_a_process_ends_with_shards_open_and_so_does_its_fork(script: str) -> None:
    assert_ends_well(script, "cpu,cpu")


def test_options_of_the_cpu_are_refused_where_there_is_none(gpu: StandIn) -> None:
    gpu.set(devices=2)
    with pytest.raises(ValueError, match="are the CPU's, not for 'cuda:all'"):
        mg.open_engine(mg.PageMatrix(ARRAY), "cuda:all", threads=2)


def test_one_device_has_an_engine_of_its_own(gpu: StandIn) -> None:
    for device in ("cuda:all", ["cuda:0"]):
        with open_devices(device) as engine:
            assert type(engine) is CudaEngine
            assert engine.device == "cuda:0"
    with open_devices(["cpu"]) as engine:
        assert type(engine) is CpuEngine


def test_other_things_than_pages_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^pages must be a PageMatrix, not ndarray$"):
        mg.open_engine(ARRAY, "cpu,cpu")  # type: ignore[arg-type]


def test_more_devices_than_leaves_are_refused_before_any_work(gpu: StandIn) -> None:
    gpu.set(devices=5)
    mg.driver_status()
    gpu.reset_log()
    message = r"^5 devices cannot share 1541 pages: each takes 512 or more, so 4 can$"
    with pytest.raises(ValueError, match=message):
        open_devices()
    assert not gpu.calls()


# Memory


def test_a_table_too_large_for_all_is_refused_before_it_is_uploaded(gpu: StandIn) -> None:
    gpu.set(devices=2)
    gpu.set_device(0, free_memory=BESIDE + LEAF)
    gpu.set_device(1, free_memory=BESIDE + 2 * LEAF)
    with pytest.raises(mg.DeviceOutOfMemoryError) as caught:
        open_devices()
    assert str(caught.value) == (
        f"1541 pages of 16 bytes need {1541 * 16} bytes of memory, and {BESIDE} more on each "
        f"device, in parts of 512 pages; free are {BESIDE + LEAF} on cuda:0, {BESIDE + 2 * LEAF} "
        "on cuda:1"
    )
    assert gpu.used() == [0] * 8
    assert gpu.calls()["cuMemAlloc"] == 0
