"""Changes of a GPU's pages when the driver fails, in every call that they make, over the stand-in.

Before the first copy nothing has changed; from then on the pages may be of two epochs, and no
engine answers from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import morphogen as mg
import morphogen.engine.cuda.device_pages as device_pages
from gpu_epochs import (
    AFTER,
    ARRAY,
    BATCH,
    CONTENTS,
    INDICES,
    SECONDS,
    Gate,
    assert_answers,
    live,
    open_gpu,
)
from standin_driver import StandIn

METHODS = ["replace_pages", "next_epoch"]


@pytest.fixture
def fresh(gpu: StandIn) -> Iterator[StandIn]:
    """The stand-in, for a test that leaves memory behind that its faults kept from being freed."""
    yield gpu
    gpu.reset()


PREPARING = {"cuStreamCreate", "cuMemHostAlloc", "cuMemHostGetDevicePointer", "cuEventCreate"}
RELEASING = {"cuMemFreeHost", "cuStreamDestroy", "cuEventDestroy"}


def calls_of_a_change(gpu: StandIn, method: str) -> list[tuple[str, int]]:
    """The driver calls of a change in pieces, each with which call of its function it is."""
    with open_gpu() as old, old.next_epoch([9], ARRAY[:1], 1) as middle:
        gpu.reset_log()
        new = getattr(middle, method)(INDICES, CONTENTS, 2)
        log = [entry.function for entry in gpu.log()]
        if new is not None:
            new.close()
    seen: Counter[str] = Counter()
    calls = []
    for function in log:
        seen[function] += 1
        calls.append((function, seen[function]))
    return calls


def assert_all_closed(engines: list[Any], reason: str) -> None:
    for engine in engines:
        assert engine.closed
        for use in (engine.read_pages, lambda one=engine: one.answer(BATCH)):
            with pytest.raises(
                mg.EngineClosedError, match=rf"^this engine was closed when {reason}"
            ):
                use()


@pytest.mark.parametrize(
    ("method", "code"),
    [("replace_pages", "CUDA_ERROR_UNKNOWN"), ("next_epoch", "CUDA_ERROR_OUT_OF_MEMORY")],
)
def test_every_call_that_fails_while_pages_are_replaced(
    gpu: StandIn, monkeypatch: pytest.MonkeyPatch, method: str, code: str
) -> None:
    monkeypatch.setattr(device_pages, "PIECE_BYTES", 96)
    calls = calls_of_a_change(gpu, method)
    made = {"cuMemcpyHtoDAsync", "cuEventRecord", "cuEventSynchronize", "cuStreamSynchronize"}
    assert PREPARING | made <= dict(calls).keys()
    before = ARRAY.copy()
    before[9] = ARRAY[0]
    after = before.copy()
    after[INDICES] = CONTENTS
    outcomes: dict[str, set[str]] = {}
    for at, (function, number) in enumerate(calls):
        old = open_gpu()
        middle = old.next_epoch([9], ARRAY[:1], 1)
        gpu.inject(function, code, call=number)
        new, error = None, None
        try:
            new = getattr(middle, method)(INDICES, CONTENTS, 2) or middle
        except mg.DeviceError as raised:
            error = str(raised)
        gpu.clear()
        if new is not None:
            outcome = "done"
            assert_answers(new, after)
            assert_answers(old, ARRAY)
            new.close()
        elif middle.closed:
            outcome = "closed"
            assert at >= calls.index(("cuMemcpyHtoDAsync", 1))
            reason = f"its device's pages were half replaced: {function} failed: {code}"
            assert str(error).startswith(f"this engine was closed when {reason}")
            assert_all_closed([old, middle], reason)
        else:
            outcome = "refused"
            assert at < calls.index(("cuMemcpyHtoDAsync", 1))
            assert str(error).startswith(f"{function} failed: {code}")
            assert middle.pages.epoch == 1
            assert_answers(middle, before)
            assert_answers(old, ARRAY)
            middle.replace_pages(INDICES, CONTENTS, 2)  # at the second try
            assert_answers(middle, after)
            assert_answers(old, ARRAY)
        outcomes.setdefault(function, set()).add(outcome)
        middle.close()
        old.close()
        del middle, old, new
        if outcome == "done":  # but something was perhaps not freed
            gpu.reset()
        gpu.assert_clean()
    refused = {name for name, found in outcomes.items() if "refused" in found}
    assert refused == {*PREPARING, "cuCtxPushCurrent"}
    assert {name for name, found in outcomes.items() if found == {"closed"}} == made
    # Contexts are entered and left to free things, too: then a failure is no reason to raise.
    assert {name for name, found in outcomes.items() if "done" in found} == {
        *RELEASING,
        "cuCtxPushCurrent",
        "cuCtxPopCurrent",
    }
    assert "closed" in outcomes["cuCtxPopCurrent"]


@pytest.mark.parametrize("kind", ["sticky", "device_lost", "late"])
@pytest.mark.parametrize("method", METHODS)
def test_a_copy_that_ends_the_context_closes_all(fresh: StandIn, method: str, kind: str) -> None:
    old = open_gpu()
    middle = old.next_epoch([9], ARRAY[:1], 1)
    fresh.inject("cuMemcpyHtoDAsync", "CUDA_ERROR_ECC_UNCORRECTABLE", call=2, **{kind: True})
    with pytest.raises(mg.DeviceError, match=r"half replaced: .*CUDA_ERROR_ECC_UNCORRECTABLE"):
        getattr(middle, method)(INDICES, CONTENTS, 2)
    assert_all_closed([old, middle], "its device's pages were half replaced: cu")


@pytest.mark.parametrize("method", METHODS)
def test_a_device_lost_before_the_first_copy_closes_all(fresh: StandIn, method: str) -> None:
    old = open_gpu()
    middle = old.next_epoch([9], ARRAY[:1], 1)
    fresh.inject("cuMemHostAlloc", "CUDA_ERROR_LAUNCH_FAILED", sticky=True)
    with pytest.raises(mg.DeviceError, match=r"^cuMemHostAlloc failed"):
        getattr(middle, method)(INDICES, CONTENTS, 2)
    assert_all_closed([old, middle], "its device failed: cuMemHostAlloc failed")


def test_a_kernel_that_fails_closes_both_epochs(fresh: StandIn) -> None:
    old = open_gpu()
    new = old.next_epoch(INDICES, CONTENTS, 1)
    fresh.inject("cuLaunchKernel", "CUDA_ERROR_LAUNCH_FAILED", late=True)
    with pytest.raises(mg.DeviceError, match=r"^cuStreamSynchronize failed"):
        new.answer(BATCH)
    assert_all_closed([old, new], "its device failed: cuStreamSynchronize failed")


@pytest.mark.parametrize("method", METHODS)
def test_without_pinned_memory_both_epochs_go_on(gpu: StandIn, method: str) -> None:
    with open_gpu() as old, old.next_epoch(INDICES, CONTENTS, 1) as new:
        gpu.set(host_memory=gpu.live()["host_bytes"])
        with pytest.raises(mg.DeviceOutOfMemoryError, match=r"page-locked memory asked for$"):
            getattr(new, method)([8], ARRAY[:1], 2)
        assert_answers(new, AFTER)
        assert_answers(old, ARRAY)
        assert new.pages.epoch == 1


def test_a_call_that_waits_while_copies_fail_says_why(gpu: StandIn) -> None:
    gate = Gate()
    old = open_gpu()
    new = old.next_epoch([9], ARRAY[:1], 1)
    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(old.answer, [gate])
        assert gate.reached.wait(SECONDS)
        gpu.inject("cuMemcpyHtoDAsync", "CUDA_ERROR_UNKNOWN", call=2)
        with pytest.raises(mg.DeviceError, match="half replaced"):
            new.replace_pages(INDICES, CONTENTS, 2)
        gate.open.set()
        with pytest.raises(mg.EngineClosedError, match="half replaced"):
            answer.result(SECONDS)
    assert not live(gpu)
