"""Engines with layout="bits", over the stand-in driver: wide chunks by the binary tensor cores."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
import morphogen.engine.cuda.bit_pages as bit_pages
import morphogen.engine.cuda.engine as cuda_engine
from driver_calls import RELEASING, calls_of
from morphogen.engine.cuda.phases import PhaseCounter
from morphogen.engine.cuda.tuning import VARIABLE, write_tuning
from morphogen.engine.strategy import Strategy
from naive import Bytes, naive_answers, open_engine, random_pages, random_rows
from standin_driver import StandIn

ARRAY = random_pages(600, 40)
BATCH = mg.make_queries(random_rows(33, 3, len(ARRAY)), len(ARRAY))[0]


def open_bits(array: Bytes = ARRAY) -> Any:
    return mg.open_engine(mg.PageMatrix(array.copy()), device="cuda:0", layout="bits")


def assert_answers(
    engine: mg.Engine, array: Bytes = ARRAY, width: int = 32, **options: Any
) -> None:
    answer = engine.answer(BATCH, max_micro_batch=width, **options)
    assert np.array_equal(answer.pages, naive_answers(array, BATCH))


def test_a_wide_chunk_answers_as_the_cpu_does(gpu: StandIn) -> None:
    with open_bits() as engine, open_engine(ARRAY) as reference:
        expected = reference.answer(BATCH).pages
        assert np.array_equal(expected, naive_answers(ARRAY, BATCH))
        answer = engine.answer(BATCH, max_micro_batch=32)
        assert np.array_equal(answer.pages, expected)
        assert answer.micro_batch_sizes == (32, 1)
    names = [launch.kernel for launch in gpu.launches()]
    assert names == [
        "morphogen_transpose",
        "morphogen_expand",
        "morphogen_bits_96",
        "morphogen_scan_3",
    ]


def test_nothing_wide_runs_unless_it_is_asked_for(gpu: StandIn) -> None:
    with open_bits() as engine:
        assert engine.default_strategy == Strategy(width=2, lanes=2, graph=False)
        assert (engine.max_micro_batch, engine.widest_micro_batch) == (2, 32)
        assert engine.answer(BATCH[:5]).micro_batch_sizes == (2, 2, 1)
        with pytest.raises(ValueError, match=r"max_micro_batch must be .*32"):
            engine.answer(BATCH, max_micro_batch=33)
    assert "morphogen_expand" not in {launch.kernel for launch in gpu.launches()}


def test_a_plain_engine_loads_nothing_for_wide_chunks(gpu: StandIn) -> None:
    def loads() -> int:
        return gpu.calls()["cuModuleLoadDataEx"]

    with mg.open_engine(mg.PageMatrix(ARRAY), device="cuda:0") as engine:
        assert engine.widest_micro_batch == 8
        assert loads() == 1
    open_bits().close()
    assert loads() == 3


@pytest.mark.parametrize(
    ("keys", "width", "kernel"),
    [
        (1, 12, "morphogen_scan_12"),
        (1, 13, "morphogen_bits_24"),
        (3, 4, "morphogen_scan_12"),
        (3, 8, "morphogen_bits_24"),
        (3, 9, "morphogen_bits_48"),
        (3, 16, "morphogen_bits_48"),
        (2, 25, "morphogen_bits_96"),
    ],
)
def test_a_chunk_takes_the_next_larger_kernel(
    gpu: StandIn, keys: int, width: int, kernel: str
) -> None:
    batch = mg.make_queries(random_rows(width, keys, len(ARRAY)), len(ARRAY))[1]
    with open_bits() as engine:
        answer = engine.answer(batch, max_micro_batch=width)
        assert np.array_equal(answer.pages, naive_answers(ARRAY, batch))
    assert gpu.launches()[-1].kernel == kernel


@pytest.mark.slow
@pytest.mark.parametrize(("num_pages", "page_size"), [(1, 1), (530, 600), (60, 4096), (3000, 16)])
def test_every_strategy_answers_as_the_cpu_does(
    gpu: StandIn, num_pages: int, page_size: int
) -> None:
    array = random_pages(num_pages, page_size)
    batch = mg.make_queries(random_rows(33, 3, num_pages), num_pages)[1]
    with open_bits(array) as engine, open_engine(array) as reference:
        expected = reference.answer(batch).pages
        # By turns: a strategy would add the remains of another in the buffers.
        for width, lanes, graph in [(32, 1, False), (8, 2, True), (2, 2, False), (16, 4, False)]:
            answer = engine.answer(batch, max_micro_batch=width, lanes=lanes, graph=graph)
            assert np.array_equal(answer.pages, expected)
        answer, times = engine.time_phases(batch, max_micro_batch=16)
        assert np.array_equal(answer.pages, expected)
        assert [chunk.queries for chunk in times.chunks] == [16, 16, 1]


def test_threads_with_many_leaves_each_answer_the_same(
    gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bit_pages, "FULL_DEVICE", 1)
    array = random_pages(9 * 512 + 5, 1)
    batch = mg.make_queries(random_rows(8, 3, len(array)), len(array))[0]
    with open_bits(array) as engine:
        answer = engine.answer(batch, max_micro_batch=8)
        assert np.array_equal(answer.pages, naive_answers(array, batch))


@pytest.mark.parametrize("tuned", [False, True])
def test_the_default_variant_is_what_runs_without_a_choice(
    tuned: bool, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tuned:
        monkeypatch.setenv(VARIABLE, str(tmp_path / "tuning.json"))
        status = mg.driver_status()
        write_tuning(tmp_path / "tuning.json", status, status.devices[0], {24: "red"}, "")
    with open_bits() as engine:
        for variant, kernel in [(None, "bits_24"), ("default", "bits_24"), ("red", "scan_24_red")]:
            assert_answers(engine, width=8, variant=variant)
            kernels = {launch.kernel for launch in gpu.launches()}
            assert f"morphogen_{kernel}" in kernels
            assert len(kernels & {"morphogen_scan_24", "morphogen_scan_24_red"}) == (
                kernel == "scan_24_red"
            )


def test_wide_chunks_are_counted_with_their_phases(gpu: StandIn) -> None:
    phases = PhaseCounter()
    pages = mg.PageMatrix(ARRAY)
    with mg.open_engine(pages, device="cuda:0", layout="bits", phases=phases) as engine:
        assert_answers(engine)
    assert phases.sums()["cuda:0"].chunks == 2


def test_pages_of_a_slice(gpu: StandIn) -> None:
    array = random_pages(5 * 512, 20)
    batch = mg.make_queries(random_rows(8, 3, len(array)), len(array))[0]
    pages = mg.PageMatrix(array).slice(3 * 512, 600)
    inside = np.zeros_like(array)
    inside[3 * 512 : 3 * 512 + 600] = array[3 * 512 : 3 * 512 + 600]
    with mg.open_engine(pages, device="cuda:0", layout="bits") as engine:
        answer = engine.answer(batch, max_micro_batch=8)
        assert np.array_equal(answer.pages, naive_answers(inside, batch))


def test_pages_that_the_device_made(gpu: StandIn) -> None:
    pages = mg.PageMatrix(np.zeros((600, 40), np.uint8))
    with cuda_engine.CudaEngine(pages, 0, generate=7, layout="bits") as engine:
        wide = engine.answer(BATCH, max_micro_batch=32).pages
        assert wide.any()
        assert np.array_equal(wide, engine.answer(BATCH).pages)


# Epochs


def test_replaced_pages_are_laid_out_anew(gpu: StandIn) -> None:
    after = ARRAY.copy()
    indices = [3, 255, 256, 599]
    after[indices] = random_pages(4, 40, seed=1)
    with open_bits() as engine:
        engine.replace_pages(indices, after[indices], 1)
        assert_answers(engine, after)
    # Groups 0 and 1 side by side, then group 2: all of them at once.
    assert Counter(launch.kernel for launch in gpu.launches())["morphogen_transpose"] == 2


def test_groups_far_from_each_other_are_laid_out_alone(gpu: StandIn) -> None:
    array = random_pages(1300, 16)
    after = array.copy()
    batch = mg.make_queries(random_rows(8, 3, len(array)), len(array))[0]
    with open_bits(array) as engine:
        for indices in ([0, 1200], [700], []):
            after[indices] = random_pages(len(indices), 16, seed=9)
            engine.replace_pages(indices, after[indices], engine.pages.epoch + 1)
            answer = engine.answer(batch, max_micro_batch=8)
            assert np.array_equal(answer.pages, naive_answers(after, batch))
    assert Counter(launch.kernel for launch in gpu.launches())["morphogen_transpose"] == 1 + 2 + 1


def test_two_epochs_answer_side_by_side(gpu: StandIn) -> None:
    after = ARRAY.copy()
    after[[5, 300]] = random_pages(2, 40, seed=2)
    with open_bits() as old, old.next_epoch([5, 300], after[[5, 300]], 1) as new:
        for _ in range(2):
            assert_answers(new, after)
            assert_answers(old, ARRAY)
        assert new.widest_micro_batch == 32


# Refusals


def test_a_layout_is_named(gpu: StandIn) -> None:
    pages = mg.PageMatrix(ARRAY)
    with pytest.raises(ValueError, match=r"layout must be 'plain' or 'bits', not 'bit'"):
        mg.open_engine(pages, device="cuda:0", layout="bit")
    with pytest.raises(TypeError, match="layout must be a str, not int"):
        mg.open_engine(pages, device="cuda:0", layout=1)  # type: ignore[arg-type]


def test_only_one_gpu_has_bits(gpu: StandIn) -> None:
    gpu.set(devices=2)
    mg.driver_status.cache_clear()
    pages = mg.PageMatrix(ARRAY)
    with pytest.raises(ValueError, match="layout='bits' is for a GPU, and 'cpu' is none here"):
        mg.open_engine(pages, device="cpu", layout="bits")
    with pytest.raises(ValueError, match="layout='bits' is for one GPU, not for 'cuda:0,cuda:1'"):
        mg.open_engine(pages, device="cuda:0,cuda:1", layout="bits")
    with mg.open_engine(pages, layout="bits") as engine:
        assert engine.device == "cuda:0"


@pytest.mark.parametrize(("capability", "native"), [(80, True), (90, True), (100, False)])
def test_a_gpu_without_tensor_cores_for_bits_is_refused(
    gpu: StandIn, capability: int, native: bool
) -> None:
    gpu.set(compute_capability=capability)
    mg.driver_status.cache_clear()
    if native:
        open_bits().close()
        return
    message = r"compute capability 8 or 9, and cuda:0 has 10.0: open it with layout='plain'"
    with pytest.raises(mg.DeviceUnavailableError, match=message):
        open_bits()


def test_both_layouts_must_fit(gpu: StandIn) -> None:
    array = np.zeros((4096, 4096), np.uint8)  # 16 MiB
    gpu.set(total_memory=24 << 20, free_memory=24 << 20)
    mg.driver_status.cache_clear()
    mg.open_engine(mg.PageMatrix(array), device="cuda:0").close()
    with pytest.raises(mg.DeviceOutOfMemoryError, match="4096 pages of 4096 bytes need"):
        open_bits(array)


# Failures


def test_every_call_that_fails_while_answering(gpu: StandIn) -> None:
    with open_bits() as engine:

        def use() -> None:
            assert_answers(engine)

        use()
        calls = calls_of(gpu, use)
        assert {"cuMemcpyHtoDAsync", "cuLaunchKernel"} <= dict(calls).keys()
        for function, number in calls:
            gpu.inject(function, "CUDA_ERROR_UNKNOWN", call=number)
            with pytest.raises(mg.DeviceError, match=f"^{function} failed: CUDA_ERROR_UNKNOWN"):
                use()
            gpu.clear()
            assert not engine.closed
            use()


@pytest.mark.parametrize("number", [1, 2, 3])  # sums, keys, selection bits
def test_room_that_is_missing_for_a_wide_chunk(gpu: StandIn, number: int) -> None:
    with open_bits() as engine:
        gpu.inject("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY", call=number)
        with pytest.raises(mg.DeviceOutOfMemoryError):
            engine.answer(BATCH[:8], max_micro_batch=8, lanes=1)
        gpu.clear()
        assert_answers(engine, width=2)
        assert_answers(engine)


@pytest.mark.slow
def test_every_call_that_fails_while_opening(gpu: StandIn) -> None:
    def work() -> None:
        mg.driver_status.cache_clear()
        open_bits().close()

    calls = [
        (function, number)
        for function, number in calls_of(gpu, work)
        if function not in RELEASING and not function.startswith("cuCtx")
    ]
    assert ("cuModuleLoadDataEx", 2) in calls
    for function, number in calls:
        gpu.inject(function, "CUDA_ERROR_UNKNOWN", call=number)
        with pytest.raises(mg.DeviceError, match=f"{function}.* failed: CUDA_ERROR_UNKNOWN"):
            work()
        gpu.clear()
        gpu.assert_clean()
    mg.driver_status.cache_clear()
    with open_bits() as engine:
        assert_answers(engine)


@pytest.mark.slow
def test_every_call_that_fails_while_pages_are_laid_out_anew(gpu: StandIn) -> None:
    contents = random_pages(2, 40, seed=3)

    def change(engine: Any) -> None:
        engine.replace_pages([3, 599], contents, 1)

    engine = open_bits()
    calls = calls_of(gpu, lambda: change(engine))
    engine.close()
    assert dict(calls)["cuLaunchKernel"] == 2
    outcomes: dict[str, set[str]] = {}
    for function, number in calls:
        engine = open_bits()
        gpu.inject(function, "CUDA_ERROR_UNKNOWN", call=number)
        try:
            change(engine)
        except mg.DeviceError:
            outcomes.setdefault(function, set()).add("closed" if engine.closed else "refused")
        gpu.clear()
        if not engine.closed:
            after = ARRAY.copy()
            if engine.pages.epoch == 1:
                after[[3, 599]] = contents
            assert_answers(engine, after)
        engine.close()
    assert outcomes["cuLaunchKernel"] == {"closed"}
    assert outcomes["cuMemcpyHtoDAsync"] == {"closed"}
    gpu.reset()
