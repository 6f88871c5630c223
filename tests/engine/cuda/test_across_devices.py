"""One engine over several devices of the stand-in driver: the answers, and who has which pages."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from device_shares import ARRAY, BATCH, SIZE, assert_answers, open_devices
from engine_processes import EXIT, FORK, assert_ends_well
from morphogen.engine.cpu import CpuEngine
from morphogen.engine.cuda import CudaEngine
from morphogen.engine.sharded import ShardedEngine
from naive import naive_answers, random_pages, random_rows
from standin_driver import StandIn

BESIDE = (16 << 20) + 16 * SIZE  # bytes that a GPU needs besides its pages
LEAF = 512 * SIZE


def counts(engine: Any) -> list[int]:
    return [held.count for held in engine.ranges]


@pytest.mark.parametrize("devices", [2, 3, 8])
def test_answers_are_those_of_one_engine(gpu: StandIn, devices: int) -> None:
    gpu.set(devices=devices)
    num_pages = 512 * (devices - 1) + 77
    array = random_pages(num_pages, SIZE)
    with open_devices("cuda:all", array) as engine:
        assert isinstance(engine, ShardedEngine)
        assert engine.device == ",".join(f"cuda:{at}" for at in range(devices))
        assert counts(engine) == [512] * (devices - 1) + [77]
        assert engine.table == mg.TableShape(num_pages, SIZE)
        queries = mg.make_queries(random_rows(2, 3, num_pages), num_pages)[0]
        assert np.array_equal(engine.answer(queries).pages, naive_answers(array, queries))
        words = np.bitwise_xor.reduce(array.view("<u8"), axis=None)
        assert engine.read_pages() == int(words)
    assert gpu.used() == [0] * 8


@pytest.mark.parametrize("keys", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 16, 40])
def test_any_batch_over_pages_of_any_size(gpu: StandIn, size: int, keys: int) -> None:
    gpu.set(devices=2)
    array = random_pages(512 + 100 + size, size)
    with open_devices("cuda:all", array) as engine, mg.open_engine(mg.PageMatrix(array)) as one:
        for count in (0, 1, 2, 7) if size == 16 else (2,):
            queries = mg.make_queries(random_rows(count, keys, len(array)), len(array))[1]
            assert engine.answer(queries).pages.tobytes() == one.answer(queries).pages.tobytes()


def test_devices_in_the_order_in_which_they_are_named(gpu: StandIn) -> None:
    gpu.set(devices=3)
    for device in (["cuda:2", "cuda:0"], ("cuda:2", "cuda:0"), "cuda:2,cuda:0"):
        with open_devices(device) as engine:
            assert engine.device == "cuda:2,cuda:0"
            assert [shard.name for (shard,) in engine.shards] == ["cuda:2", "cuda:0"]
            assert counts(engine) == [1024, 517]
            assert gpu.used()[1] == 0
            assert_answers(engine)


def test_a_gpu_and_the_cpu_share_pages(gpu: StandIn) -> None:
    with open_devices(["cpu", "cuda:0"]) as engine:
        assert engine.device == "cpu,cuda:0"
        assert_answers(engine)


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


def test_gpus_that_cannot_be_used_have_no_part(gpu: StandIn) -> None:
    gpu.set(devices=3)
    gpu.set_device(1, compute_capability=75)
    with open_devices() as engine:
        assert engine.device == "cuda:0,cuda:2"
        assert_answers(engine)


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


def test_a_table_that_no_device_can_hold_fits_all_of_them(gpu: StandIn) -> None:
    gpu.set(devices=3)
    for device, leaves in enumerate((1, 2, 1)):
        gpu.set_device(device, free_memory=BESIDE + leaves * LEAF)
    with open_devices() as engine:
        assert counts(engine) == [512, 1024, 5]
        assert_answers(engine)


def test_a_device_with_less_memory_takes_less_and_the_others_equal_parts(gpu: StandIn) -> None:
    gpu.set(devices=3)
    gpu.set_device(0, free_memory=BESIDE + LEAF)
    array = random_pages(5 * 512, SIZE)
    with open_devices("cuda:all", array) as engine:
        assert counts(engine) == [512, 1024, 1024]


def test_a_device_without_room_is_left_out(gpu: StandIn) -> None:
    gpu.set(devices=3)
    gpu.set_device(1, free_memory=1000)
    with open_devices() as engine:
        assert engine.device == "cuda:0,cuda:2"
        assert_answers(engine)
    gpu.set_device(0, free_memory=1000)
    with open_devices() as engine:
        assert type(engine) is CudaEngine
        assert engine.device == "cuda:2"


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


def test_uploads_are_told_as_one(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morphogen.engine.cuda.device_pages.PIECE_BYTES", 4096)
    gpu.set(devices=2)
    told: list[tuple[int, int]] = []
    threads = set()

    def progress(sent: int, total: int) -> None:
        told.append((sent, total))
        threads.add(threading.get_ident())

    with mg.open_engine(mg.PageMatrix(ARRAY), "cuda:all", progress=progress) as engine:
        assert_answers(engine)
    assert told == sorted(told)
    assert {total for _, total in told} == {len(ARRAY) * 16}
    assert told[-1][0] == len(ARRAY) * 16
    assert threads == {threading.get_ident()}


def test_a_pass_fills_both_lanes_of_each_device(gpu: StandIn) -> None:
    gpu.set(devices=2)
    with open_devices() as engine:
        assert engine.max_micro_batch == 4
        queries = mg.make_queries(random_rows(6, 3, len(ARRAY)), len(ARRAY))[0]
        gpu.reset_log()
        assert engine.answer(queries).micro_batch_sizes == (4, 2)
    calls: dict[int, list[str]] = {}
    for entry in gpu.log():
        if entry.function in {"cuLaunchKernel", "cuStreamSynchronize"}:
            calls.setdefault(entry.thread, []).append(entry.function)
    launch, wait = "cuLaunchKernel", "cuStreamSynchronize"
    assert list(calls.values()) == [[launch, launch, wait, wait, launch, wait]] * 2


def test_two_calls_are_under_way_at_a_time(gpu: StandIn) -> None:
    gpu.set(devices=2)
    with open_devices() as engine, ThreadPoolExecutor(3) as callers:
        assert (engine.max_in_flight, engine.replicas) == (2, 1)
        for done in [callers.submit(assert_answers, engine) for _ in range(5)]:
            done.result()


# A slice of a table, as a host of a cluster has it


def test_devices_share_a_slice_of_a_table(gpu: StandIn) -> None:
    gpu.set(devices=2)
    table = mg.PageMatrix(ARRAY)
    with (
        mg.open_engine(table.slice(0, 512), "cpu", threads=1) as others,
        mg.open_engine(table.slice(512, 1029), "cuda:all") as engine,
    ):
        assert isinstance(engine, ShardedEngine)
        assert [(held.first, held.count) for held in engine.ranges] == [(512, 512), (1024, 517)]
        assert engine.table == table.table
        answer = engine.answer(BATCH)
        assert answer.num_pages == len(ARRAY)
        sums = answer.pages ^ others.answer(BATCH).pages
        assert np.array_equal(sums, naive_answers(ARRAY, BATCH))


def test_a_batcher_answers_over_devices(gpu: StandIn) -> None:
    gpu.set(devices=2)
    with open_devices() as engine, mg.MicroBatcher(engine) as batcher:
        answers = batcher.submit_many(BATCH)
        found = np.concatenate([answer.result().pages for answer in answers])
    assert np.array_equal(found, naive_answers(ARRAY, BATCH))
