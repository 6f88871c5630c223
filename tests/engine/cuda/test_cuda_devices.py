"""The device that an engine is opened on, and the errors if none can be used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import morphogen as mg
from morphogen.engine.cuda import CudaEngine
from small_gpu_engine import PAGES, assert_answers, open_gpu
from standin_driver import StandIn, environment


def test_the_first_usable_device_by_default(gpu: StandIn) -> None:
    gpu.set(devices=2)
    for device, expected in [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")]:
        with open_gpu(device) as engine:
            assert engine.device == expected
            assert_answers(engine)
    # Options of the CPU engine ask for it.
    with mg.open_engine(PAGES, threads=1) as engine:
        assert engine.device == "cpu"
    with pytest.raises(ValueError, match="are the CPU's, not for 'cuda:0'"):
        mg.open_engine(PAGES, device="cuda:0", threads=2)


def test_pages_too_many_for_the_gpu_stay_on_the_cpu_unless_a_gpu_was_asked_for(
    gpu: StandIn,
) -> None:
    gpu.set_free_memory(5000)
    with mg.open_engine(PAGES) as engine:
        assert engine.device == "cpu"
    for device in ("cuda", "cuda:0"):
        with pytest.raises(mg.DeviceOutOfMemoryError):
            open_gpu(device)


def test_a_gpu_that_refuses_the_kernels_leaves_the_cpu(gpu: StandIn) -> None:
    gpu.set(devices=2)
    gpu.inject("cuModuleLoadDataEx", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION")
    with mg.open_engine(PAGES) as engine:
        assert engine.device == "cuda:1"
    gpu.set(devices=1)
    mg.driver_status.cache_clear()
    gpu.inject("cuModuleLoadDataEx", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION")
    with mg.open_engine(PAGES) as engine:
        assert engine.device == "cpu"


def test_a_device_that_is_not_there(gpu: StandIn) -> None:
    message = r"^cuda:1 is not there: the driver shows 1 device\(s\)$"
    with pytest.raises(mg.DeviceUnavailableError, match=message):
        open_gpu("cuda:1")


@pytest.mark.parametrize("ordinal", [-1, 2**31, 2**70])
def test_an_ordinal_that_no_device_can_have(gpu: StandIn, ordinal: int) -> None:
    message = rf"^ordinal must be in 0\.\.2147483647, not {ordinal}$"
    with pytest.raises(ValueError, match=message):
        CudaEngine(PAGES, ordinal)


def test_a_device_that_cannot_be_examined_hides_no_other(gpu: StandIn) -> None:
    gpu.set(devices=2)
    gpu.inject("cuDeviceGetName", "CUDA_ERROR_UNKNOWN")
    first, second = mg.driver_status().devices
    assert not first.usable
    assert "cuDeviceGetName failed" in first.reason
    assert second.usable
    with open_gpu("cuda") as engine:
        assert engine.device == "cuda:1"
    with pytest.raises(mg.DeviceUnavailableError, match=r"^cuda:0 cannot be used: .*DeviceGetName"):
        open_gpu("cuda:0")


def test_a_device_that_is_too_old(gpu: StandIn) -> None:
    gpu.set(compute_capability=75)
    status = mg.driver_status()
    assert not status.usable
    assert status.reason == status.devices[0].reason
    message = "has compute capability 7.5, and the page kernels need 8.0 or more"
    assert message in status.reason
    for device in ("cuda", "cuda:0"):
        with pytest.raises(mg.DeviceUnavailableError, match=message):
            open_gpu(device)
    with mg.open_engine(PAGES) as engine:
        assert engine.device == "cpu"


def test_a_usable_device(gpu: StandIn) -> None:
    gpu.set(compute_capability=90, multiprocessors=7)
    status = mg.driver_status()
    assert status is mg.driver_status()
    assert status.usable
    assert status.driver_version == "13.0"
    (device,) = status.devices
    assert device.usable
    assert device.ordinal == 0
    assert device.name
    assert device.compute_capability == (9, 0)
    assert device.multiprocessors == 7
    assert device.memory == 1 << 30
    assert device.ptx == "page_scan.compute_80.ptx"


def test_no_device(gpu: StandIn) -> None:
    gpu.set(devices=0)
    status = mg.driver_status()
    assert not status.usable
    assert status.devices == ()
    assert "shows no device" in status.reason
    with pytest.raises(mg.DeviceUnavailableError, match=r"^no GPU can be used: .*shows no device"):
        open_gpu("cuda")


def test_a_driver_too_old_for_the_ptx(gpu: StandIn) -> None:
    gpu.set(driver_version=12080)
    status = mg.driver_status()
    assert status.reason == (
        "the NVIDIA driver supports CUDA 12.8, and the page kernels need 13.0 or newer: "
        "update the driver"
    )
    assert status.driver_version == "12.8"
    with pytest.raises(mg.DeviceUnavailableError, match=r"cuda:0 cannot be used: .* CUDA 12\.8"):
        open_gpu()


def run_python(script: str, **variables: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_no_driver() -> None:
    # A folder of nobody's first: on a machine with a driver this finds that.
    output = run_python(
        "import ctypes, morphogen as mg\n"
        "try: ctypes.CDLL('libcuda.so.1'); print('driver')\n"
        "except OSError: print(mg.driver_status().reason)\n"
    )
    if output.strip() == "driver":
        pytest.skip("gpu: this machine has no GPU that can be used, but it has a driver")
    assert output.startswith("there is no NVIDIA driver: ")
    assert output.count("\n") == 1


def test_no_bindings() -> None:
    output = run_python(
        "import sys; sys.modules['cuda'] = None\n"
        "import morphogen as mg; print(mg.driver_status().reason)\n"
    )
    assert output == "the GPU engine needs cuda.bindings: pip install 'morphogen[cuda]'\n"


def test_no_engine_in_this_build() -> None:
    output = run_python(
        "import sys; sys.modules['morphogen.engine.cuda._driver'] = None\n"
        "import morphogen as mg; print(mg.driver_status().reason)\n"
    )
    assert output.startswith("this build has no usable GPU engine: ")


def test_a_process_that_ends_with_an_engine_open(standin_directory: Path) -> None:
    script = (
        "import numpy as np, morphogen as mg\n"
        "engine = mg.open_engine(mg.PageMatrix(np.ones((9, 9), np.uint8)), device='cuda')\n"
        "print(engine.answer(mg.make_queries([[1]], 9)[0]).pages.shape)\n"
    )
    assert run_python(script, **environment(standin_directory)) == "(1, 1, 9)\n"
