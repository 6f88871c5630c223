"""The GPU engine when the driver fails, in every call that it makes, over the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import morphogen as mg
import morphogen.engine.cuda.device_pages as device_pages
from driver_calls import RELEASING, calls_of
from naive import random_rows
from small_gpu_engine import BATCH, assert_answers, open_gpu
from standin_driver import StandIn


def use(engine: Any) -> None:
    assert_answers(engine)
    engine.read_pages()
    engine.time_phases(BATCH[:3])
    assert_answers(engine, max_micro_batch=4, lanes=4, graph=True)


@pytest.fixture
def fresh(gpu: StandIn) -> Iterator[StandIn]:
    """The stand-in, for a test that leaves memory behind that its faults kept from being freed."""
    yield gpu
    gpu.reset()


def test_every_call_that_fails_while_opening(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_pages, "PIECE_BYTES", 2000)  # four pieces, in two buffers

    def work() -> Any:
        mg.driver_status.cache_clear()
        return open_gpu()

    # Contexts are entered and left to free things, too: then a failure is no reason to raise.
    calls = [
        (function, number)
        for function, number in calls_of(gpu, work)
        if function not in RELEASING and (number == 1 or not function.startswith("cuCtx"))
    ]
    calls.remove(("cuCtxPopCurrent", 1))
    assert len({function for function, _ in calls}) > 15
    assert {"cuMemcpyHtoDAsync", "cuEventSynchronize"} <= dict(calls).keys()
    for function, number in calls:
        # A function makes the same error of a code at each of its calls.
        for code in ["CUDA_ERROR_UNKNOWN", "CUDA_ERROR_OUT_OF_MEMORY"][: 2 if number == 1 else 1]:
            mg.driver_status.cache_clear()
            gpu.inject(function, code, call=number)
            with pytest.raises(mg.DeviceError, match=f"{function}.* failed: {code}") as caught:
                open_gpu().close()
            if code == "CUDA_ERROR_UNKNOWN" and "cannot be used" not in str(caught.value):
                assert type(caught.value) is mg.DeviceError
            if code == "CUDA_ERROR_OUT_OF_MEMORY" and "cannot be used" not in str(caught.value):
                assert isinstance(caught.value, mg.DeviceOutOfMemoryError)
            del caught
            gpu.clear()
            gpu.assert_clean()
    mg.driver_status.cache_clear()
    with open_gpu() as engine:
        use(engine)


def test_a_context_that_cannot_be_left_while_opening(gpu: StandIn) -> None:
    pops = [call for call in calls_of(gpu, open_gpu) if call[0] == "cuCtxPopCurrent"]
    raised = []
    for function, number in pops:
        gpu.inject(function, "CUDA_ERROR_UNKNOWN", call=number)
        try:
            open_gpu().close()
        except mg.DeviceError as error:
            raised.append((number, str(error).split()[0]))
        gpu.clear()
        gpu.assert_clean()
    # All but the last are left after something was freed: that is no reason to raise.
    assert raised == [(len(pops), "cuCtxPopCurrent")]


def test_every_call_that_fails_while_answering(gpu: StandIn) -> None:
    with open_gpu() as engine:
        use(engine)
        calls = calls_of(gpu, lambda: use(engine))
        made = {"cuLaunchKernel", "cuStreamSynchronize", "cuEventRecord"}
        made |= {"cuGraphExecKernelNodeSetParams", "cuGraphLaunch"}
        assert made <= dict(calls).keys()
        for function, number in calls:
            gpu.inject(function, "CUDA_ERROR_UNKNOWN", call=number)
            with pytest.raises(mg.DeviceError, match=f"^{function} failed: CUDA_ERROR_UNKNOWN"):
                use(engine)
            gpu.clear()
            # It goes on, and the remains of the failed batch in its lanes do no harm.
            assert not engine.closed
            use(engine)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sticky", "device_lost"])
def test_a_lost_context_closes_the_engine(fresh: StandIn, kind: str) -> None:
    engine = open_gpu()
    made = calls_of(fresh, lambda: use(engine))
    engine.close()
    # The first call of each function, and the last.
    calls = sorted({*dict(reversed(made)).items(), *dict(made).items()})
    if kind == "sticky":
        # The context that it is to break is not yet current there.
        calls = [call for call in calls if call[0] != "cuCtxPushCurrent"]
    for function, number in calls:
        engine = open_gpu()
        fresh.inject(function, "CUDA_ERROR_ILLEGAL_ADDRESS", call=number, **{kind: True})
        with pytest.raises(mg.DeviceError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
            use(engine)
        # If the call that failed was not one of the work itself, the next batch finds out.
        if not engine.closed:
            assert function.startswith("cuCtx")
            with pytest.raises(mg.DeviceError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
                use(engine)
        with pytest.raises(mg.EngineClosedError, match=r"closed when its device failed: cu\w+ "):
            use(engine)
        assert engine.closed
        engine.close()
        fresh.clear()
        fresh.reset()
        mg.driver_status.cache_clear()
        with open_gpu() as again:
            use(again)


def test_a_kernel_that_fails(fresh: StandIn) -> None:
    engine = open_gpu()
    # The launch itself succeeds: the error comes out at the wait for it.
    fresh.inject("cuLaunchKernel", "CUDA_ERROR_LAUNCH_FAILED", call=2, late=True)
    with pytest.raises(
        mg.DeviceError, match=r"^cuStreamSynchronize failed: CUDA_ERROR_LAUNCH_FAIL"
    ):
        engine.answer(BATCH)
    with pytest.raises(mg.EngineClosedError, match="its device failed"):
        engine.answer(BATCH)


RESTART = "; start this process again to use the device"


@pytest.mark.parametrize("code", ["CUDA_ERROR_ILLEGAL_ADDRESS", "CUDA_ERROR_LAUNCH_FAILED"])
def test_an_error_that_ends_the_context_says_to_start_the_process_again(
    fresh: StandIn, code: str
) -> None:
    engine = open_gpu()
    fresh.inject("cuLaunchKernel", code, sticky=True)
    with pytest.raises(mg.DeviceError) as caught:
        engine.answer(BATCH)
    assert str(caught.value).endswith(RESTART)
    for _ in range(2):
        with pytest.raises(mg.EngineClosedError) as closed:
            engine.answer(BATCH)
        assert str(closed.value).count(RESTART) == 1


def test_a_lost_device_says_to_start_the_process_again_whatever_its_error(fresh: StandIn) -> None:
    engine = open_gpu()
    fresh.inject("cuLaunchKernel", "CUDA_ERROR_UNKNOWN", device_lost=True)
    with pytest.raises(mg.DeviceError, match="CUDA_ERROR_UNKNOWN") as caught:
        engine.answer(BATCH)
    assert RESTART not in str(caught.value)
    with pytest.raises(mg.EngineClosedError, match=RESTART):
        engine.answer(BATCH)


def test_a_passing_error_says_nothing_of_a_restart(gpu: StandIn) -> None:
    with open_gpu() as engine:
        gpu.inject("cuLaunchKernel", "CUDA_ERROR_UNKNOWN")
        with pytest.raises(mg.DeviceError) as caught:
            engine.answer(BATCH)
        assert RESTART not in str(caught.value)
        use(engine)


@pytest.mark.parametrize("function", sorted(RELEASING))
def test_what_cannot_be_freed_is_no_error(fresh: StandIn, function: str) -> None:
    engine = open_gpu()
    use(engine)
    fresh.inject(function, "CUDA_ERROR_UNKNOWN")
    engine.close()
    assert engine.closed


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", mg.DeviceUnavailableError),
        ("CUDA_ERROR_INVALID_PTX", mg.DeviceUnavailableError),
        ("CUDA_ERROR_NO_BINARY_FOR_GPU", mg.DeviceUnavailableError),
        ("CUDA_ERROR_JIT_COMPILER_NOT_FOUND", mg.DeviceUnavailableError),
        ("CUDA_ERROR_OUT_OF_MEMORY", mg.DeviceOutOfMemoryError),
        ("CUDA_ERROR_INVALID_VALUE", mg.DeviceError),
    ],
)
def test_ptx_that_the_driver_refuses(gpu: StandIn, code: str, error: type[Exception]) -> None:
    gpu.inject("cuModuleLoadDataEx", code)
    with pytest.raises(error, match=f"^cuModuleLoadDataEx failed: {code}") as caught:
        open_gpu()
    assert type(caught.value) is error


def test_a_device_that_cannot_hold_a_block(gpu: StandIn) -> None:
    gpu.set(registers=255)
    message = "^a multiprocessor of cuda:0 cannot hold a block of 1024 threads$"
    with pytest.raises(mg.DeviceUnavailableError, match=message):
        open_gpu()


def test_pages_that_do_not_fit(gpu: StandIn) -> None:
    gpu.set_free_memory(7000)
    message = r"^150 pages of 40 bytes need \d+ bytes of memory on cuda:0, and 7000 are free$"
    with pytest.raises(mg.DeviceOutOfMemoryError, match=message) as caught:
        open_gpu()
    assert isinstance(caught.value, MemoryError)
    assert int(str(caught.value).split("need ")[1].split()[0]) > 150 * 48


def test_memory_that_goes_while_the_engine_opens(gpu: StandIn) -> None:
    for number in (1, 2, 3):
        gpu.inject("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY", call=number)
        message = r"^cuMemAlloc failed: .*: \d+ bytes asked for, \d+ free$"
        with pytest.raises(mg.DeviceOutOfMemoryError, match=message):
            open_gpu()
        gpu.assert_clean()


# Batches that are refused before any launch


@pytest.mark.parametrize("position", [0, 1, 4])
@pytest.mark.parametrize("offset", [0, 4, 5, 6, 9])
def test_hostile_keys_never_reach_the_device(gpu: StandIn, position: int, offset: int) -> None:
    bad = bytearray(BATCH[position].keys[1])
    bad[offset] ^= 0xFF
    # Past Query's own checks: an engine does not rely on them.
    query = object.__new__(mg.Query)
    object.__setattr__(query, "keys", (BATCH[position].keys[0], bytes(bad)))
    batch = [*BATCH[:position], query, *BATCH[position + 1 :]]
    with open_gpu() as engine:
        with pytest.raises(mg.InvalidKeyError):
            engine.answer(batch)
        assert gpu.launches() == []
        use(engine)


def test_keys_for_other_pages_never_reach_the_device(gpu: StandIn) -> None:
    other = mg.make_queries(random_rows(2, 2, 3000), 3000)[0]
    with open_gpu() as engine:
        with pytest.raises(mg.KeyDomainError):
            engine.answer([BATCH[0], other[0]])
        assert gpu.launches() == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param({"queries": None}, TypeError, id="no list"),
        pytest.param({"queries": [None]}, TypeError, id="no query"),
        pytest.param({"queries": BATCH, "max_micro_batch": 0}, ValueError, id="no width"),
        pytest.param({"queries": BATCH, "max_micro_batch": 1.5}, TypeError, id="half a width"),
        pytest.param(
            {"queries": BATCH, "out": np.empty((5, 2, 41), np.uint8)}, ValueError, id="long pages"
        ),
        pytest.param(
            {"queries": BATCH, "out": np.empty((5, 2, 40), np.int8)}, TypeError, id="signed bytes"
        ),
        pytest.param({"queries": BATCH, "out": []}, TypeError, id="no array"),
    ],
)
def test_wrong_arguments_never_reach_the_device(
    gpu: StandIn, arguments: dict[str, Any], error: type[Exception]
) -> None:
    queries = arguments.pop("queries")
    with open_gpu() as engine:
        with pytest.raises(error):
            engine.answer(queries, **arguments)
        assert gpu.launches() == []
