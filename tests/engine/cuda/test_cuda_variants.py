"""The variants of the page kernels that a caller asks for, over the stand-in driver."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import morphogen as mg
from driver_calls import RELEASING, calls_of
from morphogen.engine.cuda.variants import VARIANTS, find
from naive import naive_answers, random_rows
from small_gpu_engine import ARRAY, PAGES, open_gpu
from standin_driver import StandIn

BATCH = mg.make_queries(random_rows(9, 3, len(ARRAY)), len(ARRAY))[0]
NAIVE = naive_answers(ARRAY, BATCH)


@pytest.fixture
def gpu(gpu: StandIn) -> StandIn:
    gpu.set(compute_capability=90)
    return gpu


def modules(gpu: StandIn) -> int:
    return gpu.calls()["cuModuleLoadDataEx"]


@pytest.mark.parametrize("name", [variant.name for variant in VARIANTS])
def test_every_variant_answers_as_the_default_does(name: str, gpu: StandIn) -> None:
    keys = find(name).keys[-1]
    width = keys // 3
    with open_gpu() as engine:
        answer = engine.answer(BATCH, max_micro_batch=width, variant=name)
        assert np.array_equal(answer.pages, NAIVE)
        again = engine.answer(BATCH, max_micro_batch=width)
        assert np.array_equal(again.pages, NAIVE)
    launched = [launch.kernel for launch in gpu.launches()]
    assert launched.count(f"morphogen_scan_{keys}_{name}") == 9 // width
    assert f"morphogen_scan_{keys}" in launched, "when no variant is asked for"


def test_a_chunk_that_a_variant_does_not_serve_runs_the_default_kernel(gpu: StandIn) -> None:
    with open_gpu() as engine:
        answer = engine.answer(BATCH, variant="two_blocks")
        assert np.array_equal(answer.pages, NAIVE)
    launches = [(launch.kernel, launch.block[0]) for launch in gpu.launches()]
    assert launches == [*[("morphogen_scan_6_two_blocks", 512)] * 4, ("morphogen_scan_3", 1024)]


def test_a_graph_replays_a_variant(gpu: StandIn) -> None:
    with open_gpu() as engine:
        for _ in range(2):
            answer = engine.answer(BATCH, variant="red", graph=True)
            assert np.array_equal(answer.pages, NAIVE)


def test_a_module_is_loaded_when_something_of_it_is_first_wanted(gpu: StandIn) -> None:
    with open_gpu() as engine:
        engine.answer(BATCH, variant="default")
        assert modules(gpu) == 1
        engine.answer(BATCH, variant="red")
        engine.answer(BATCH, variant="red")
        assert modules(gpu) == 2
        engine.answer(BATCH, variant="bulk_prefetch")
        assert modules(gpu) == 3


@pytest.mark.parametrize("name", [variant.name for variant in VARIANTS])
def test_after_any_call_that_fails_an_engine_answers_again(name: str, gpu: StandIn) -> None:
    keys = find(name).keys[0]
    width = keys // 3

    def use(engine: Any) -> None:
        answer = engine.answer(BATCH[:width], max_micro_batch=width, variant=name)
        assert np.array_equal(answer.pages, NAIVE[:width])

    with open_gpu() as engine:  # the first use loads the module
        calls = calls_of(gpu, lambda: use(engine))
    assert f"morphogen_scan_{keys}_{name}" in {launch.kernel for launch in gpu.launches()}
    made = {"cuModuleLoadDataEx", "cuModuleGetFunction", "cuLaunchKernel", "cuStreamSynchronize"}
    assert made <= dict(calls).keys()
    # A context is entered and left to free smaller buffers, too: then no failure is raised.
    last = max(call for call in calls if call[0] == "cuCtxPopCurrent")
    own = [call for call in calls if call[0] not in RELEASING and not call[0].startswith("cuCtx")]
    for function, number in [("cuCtxPushCurrent", 1), *own, last]:
        with open_gpu() as engine:
            gpu.inject(function, "CUDA_ERROR_OUT_OF_MEMORY", call=number)
            with pytest.raises(mg.DeviceError, match=f"{function} failed"):
                use(engine)
            gpu.clear()
            use(engine)
        gpu.assert_clean()


@pytest.mark.parametrize(
    ("device", "capability", "name", "expected"),
    [
        (
            "cuda:0",
            80,
            "fast",
            r"^variant must be one of default, red, .* on cuda:0, not 'fast'$",
        ),
        ("cuda:0", 80, "bulk_prefetch", r"^variant must be one of default, .*not 'bulk_prefetch'$"),
        ("cpu", 80, "red", r"^variant must be None on cpu, not 'red'$"),
    ],
)
def test_an_unknown_or_unsuitable_name_is_refused_before_any_work(
    device: str, capability: int, name: str, expected: str, gpu: StandIn
) -> None:
    gpu.set(compute_capability=capability)
    with (
        mg.open_engine(PAGES, device=device) as engine,
        pytest.raises(ValueError, match=expected),
    ):
        engine.answer(BATCH, variant=name)
    assert gpu.launches() == []


def test_a_variant_is_a_str(gpu: StandIn) -> None:
    anything: Any = 7
    with open_gpu() as engine, pytest.raises(TypeError, match=r"^variant must be a str, not int$"):
        engine.answer(BATCH, variant=anything)


def test_the_next_epochs_engine_has_the_variants_too(gpu: StandIn) -> None:
    changed = np.zeros((1, ARRAY.shape[1]), np.uint8)
    with open_gpu() as engine, engine.next_epoch([3], changed, epoch=1) as later:
        expected = later.answer(BATCH).pages
        assert np.array_equal(later.answer(BATCH, variant="red").pages, expected)
        assert np.array_equal(engine.answer(BATCH, variant="red").pages, NAIVE)
