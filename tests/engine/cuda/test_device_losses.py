"""One of several devices fails or is lost: a clear error, and never a wrong page."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from device_shares import AFTER, ARRAY, BATCH, CONTENTS, INDICES, assert_answers, open_devices
from standin_driver import StandIn

METHODS = ["replace_pages", "next_epoch"]


@pytest.fixture
def two(gpu: StandIn) -> Iterator[StandIn]:
    """Two devices, for tests that leave memory behind that faults kept from being freed."""
    gpu.set(devices=2)
    yield gpu
    gpu.reset()


def assert_closed(engine: Any, reason: str) -> None:
    assert engine.closed
    for use in (
        engine.check_usable,
        engine.read_pages,
        lambda: engine.answer(BATCH),
        lambda: engine.next_epoch([], ARRAY[:0], 9),
    ):
        with pytest.raises(mg.EngineClosedError, match=reason):
            use()


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_device_closes_the_engine_with_its_name(two: StandIn, lost: int) -> None:
    engine = open_devices()
    assert_answers(engine)
    two.lose(lost, "CUDA_ERROR_ECC_UNCORRECTABLE")
    with pytest.raises(mg.DeviceError, match=rf"^cuda:{lost}: cu\w+ failed: CUDA_ERROR_ECC"):
        engine.answer(BATCH)
    assert_closed(engine, rf"^cuda:{lost}: this engine was closed when its device failed: cu\w+ ")
    assert two.used()[1 - lost] == 0  # the other's memory is free
    engine.close()


def test_a_kernel_that_fails_late_is_no_wrong_page(two: StandIn) -> None:
    engine = open_devices()
    two.inject("cuLaunchKernel", "CUDA_ERROR_LAUNCH_FAILED", late=True, device=1)
    with pytest.raises(mg.DeviceError, match=r"^cuda:1: cuStreamSynchronize failed"):
        engine.answer(BATCH)
    assert_closed(engine, r"^cuda:1: .* its device failed")


def test_a_passing_failure_of_one_device_leaves_the_engine_open(two: StandIn) -> None:
    with open_devices() as engine:
        for function in ("cuLaunchKernel", "cuStreamSynchronize", "cuCtxPushCurrent"):
            two.inject(function, "CUDA_ERROR_UNKNOWN")
            with pytest.raises(mg.DeviceError, match=rf"^cuda:[01]: {function} failed"):
                engine.answer(BATCH)
            two.clear()
            assert not engine.closed
            assert_answers(engine)


def test_one_of_two_devices_that_fails_while_opening_leaves_nothing_behind(two: StandIn) -> None:
    for function in (
        "cuDevicePrimaryCtxRetain",
        "cuMemGetInfo",
        "cuModuleLoadDataEx",
        "cuModuleGetFunction",
        "cuMemAlloc",
        "cuMemHostAlloc",
        "cuStreamCreate",
        "cuMemcpyHtoDAsync",
        "cuStreamSynchronize",
    ):
        number = 2 if function == "cuDevicePrimaryCtxRetain" else 1
        own = {} if function == "cuDevicePrimaryCtxRetain" else {"device": 1}
        two.inject(function, "CUDA_ERROR_UNKNOWN", call=number, **own)  # type: ignore[arg-type]
        with pytest.raises(mg.DeviceError, match=rf"^cuda:1: {function} failed") as caught:
            open_devices()
        del caught
        two.clear()
        two.assert_clean()


@pytest.mark.parametrize("method", METHODS)
def test_changed_pages_over_devices(two: StandIn, method: str) -> None:
    with open_devices() as engine:
        following = getattr(engine, method)(INDICES, CONTENTS, 1) or engine
        with following:
            assert following.table.epoch == 1
            assert following.answer(BATCH).epoch == 1
            assert following.device == "cuda:0,cuda:1"
            assert_answers(following, AFTER)
            if following is not engine:
                assert_answers(engine, ARRAY)
                following.replace_pages(INDICES, ARRAY[INDICES], 2)
                assert_answers(following, ARRAY)
                assert_answers(engine, ARRAY)
    two.assert_clean()


@pytest.mark.parametrize("device", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_a_change_refused_by_one_device_changes_nothing(
    two: StandIn, method: str, device: int
) -> None:
    with open_devices() as engine:
        two.inject("cuMemHostAlloc", "CUDA_ERROR_OUT_OF_MEMORY", device=device)
        with pytest.raises(mg.DeviceOutOfMemoryError, match=rf"^cuda:{device}: cuMemHostAlloc"):
            getattr(engine, method)(INDICES, CONTENTS, 1)
        assert engine.table.epoch == 0
        assert_answers(engine, ARRAY)
        engine.replace_pages(INDICES, CONTENTS, 1)  # at the second try
        assert_answers(engine, AFTER)
    two.assert_clean()


@pytest.mark.parametrize("device", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_a_change_half_done_on_one_device_closes_the_engine(
    two: StandIn, method: str, device: int
) -> None:
    engine = open_devices()
    older = engine.next_epoch([7], ARRAY[:1], 5)
    two.inject("cuMemcpyHtoDAsync", "CUDA_ERROR_UNKNOWN", call=2, device=device)
    with pytest.raises(mg.DeviceError, match=rf"^cuda:{device}: .*half replaced"):
        getattr(engine, method)(INDICES, CONTENTS, 1)
    for one in (engine, older):
        assert_closed(one, rf"^cuda:{device}: .* its device's pages were half replaced: cu")
        one.close()


def test_every_driver_call_that_fails_on_one_of_two_devices(two: StandIn) -> None:
    """A sample of the calls of an answer and a change, each of which fails once."""
    right = {0: ARRAY, 1: AFTER}
    outcomes = set()
    for function in ("cuLaunchKernel", "cuStreamSynchronize", "cuMemcpyHtoDAsync", "cuEventRecord"):
        for number in (1, 3):
            engine = open_devices()
            two.inject(function, "CUDA_ERROR_UNKNOWN", call=number, device=1)
            for use in (
                partial(engine.answer, BATCH),
                partial(engine.replace_pages, INDICES, CONTENTS, 1),
            ):
                try:
                    use()
                except mg.DeviceError as error:
                    assert str(error).startswith("cuda:1: ")  # noqa: PT017
                    outcomes.add("closed" if engine.closed else "goes on")
            two.clear()
            if not engine.closed:
                answer = engine.answer(BATCH)
                one = mg.open_engine(mg.PageMatrix(right[answer.epoch]), "cpu", threads=1)
                assert np.array_equal(answer.pages, one.answer(BATCH).pages)
            engine.close()
            two.reset()
            two.set(devices=2)
            mg.driver_status.cache_clear()
    assert outcomes == {"closed", "goes on"}
