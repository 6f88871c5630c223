"""Code compiled when the package was built: which is loaded, and when the PTX is taken instead.

Engines run over the stand-in driver, which runs the PTX in the code's place. So this says nothing
of the code itself: that ptxas makes it from the tested PTX is all that is known without a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import compiled_code
import make_cubins
import make_ptx
import morphogen as mg
import morphogen.engine.cuda.ptx as ptx
from compiled_code import CUBINS
from small_gpu_engine import assert_answers, open_gpu
from standin_driver import StandIn


@pytest.fixture
def folder(gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a package whose build found ptxas; the stand-in knows its code."""
    monkeypatch.setattr(ptx, "MANIFEST", make_cubins.MANIFEST)
    monkeypatch.setattr(ptx, "FOLDER", tmp_path / "ptx")
    compiled_code.install(gpu, ptx.FOLDER)
    return ptx.FOLDER


def loads(gpu: StandIn) -> list[int]:
    """The results of the driver's loads so far."""
    return [entry.result for entry in gpu.log() if entry.function == "cuModuleLoadDataEx"]


# The choice of code


@pytest.mark.parametrize("architecture", CUBINS)
def test_a_device_loads_the_code_that_was_compiled_for_it(
    architecture: int, folder: Path, gpu: StandIn
) -> None:
    gpu.set(compute_capability=architecture)
    (device,) = mg.driver_status().devices
    assert device.compiled == CUBINS[architecture]
    assert device.ptx == make_ptx.DEFAULT
    with open_gpu() as engine:
        assert engine.code == f"sm_{architecture}"
        assert engine.ptx == "compute_80"
        assert_answers(engine)
    assert loads(gpu) == [0]


@pytest.mark.parametrize("compute_capability", [86, 87, 89, 103, 120])
def test_a_device_between_takes_the_ptx(
    compute_capability: int, folder: Path, gpu: StandIn
) -> None:
    gpu.set(compute_capability=compute_capability)
    assert mg.driver_status().devices[0].compiled == ""
    with open_gpu() as engine:
        assert engine.code == engine.ptx
        assert_answers(engine)


def test_a_package_without_compiled_code_takes_the_ptx(folder: Path, gpu: StandIn) -> None:
    for name in (*CUBINS.values(), ptx.MANIFEST):
        (folder / name).unlink()
    assert mg.driver_status().devices[0].compiled == ""
    with open_gpu() as engine:
        assert engine.code == "compute_80"
        assert_answers(engine)


@pytest.mark.parametrize("name", ["page_scan.sm_80.cubin", "page_scan.compute_80.ptx"])
def test_stale_code_is_never_loaded(name: str, folder: Path, gpu: StandIn) -> None:
    with (folder / name).open("a") as file:
        file.write("\n// changed after the build\n")
    assert mg.driver_status().devices[0].compiled == ""
    with open_gpu() as engine:
        assert engine.code == "compute_80"
    assert loads(gpu) == [0]


def test_code_that_no_manifest_names_is_not_loaded(folder: Path, gpu: StandIn) -> None:
    manifest = folder / ptx.MANIFEST
    manifest.write_text(manifest.read_text().replace("sm_80", "sm_70"))
    assert mg.driver_status().devices[0].compiled == ""
    manifest.write_bytes(b"\xff\xfe damaged")
    assert ptx.choose_compiled((8, 0)) is None
    manifest.unlink()
    assert ptx.choose_compiled((8, 0)) is None


# The driver's use of it


@pytest.mark.parametrize(
    "code",
    [
        "CUDA_ERROR_NO_BINARY_FOR_GPU",
        "CUDA_ERROR_INVALID_IMAGE",
        "CUDA_ERROR_INVALID_VALUE",
        "CUDA_ERROR_UNKNOWN",
    ],
)
def test_the_ptx_is_loaded_where_the_driver_refuses_the_code(
    code: str, folder: Path, gpu: StandIn
) -> None:
    gpu.inject("cuModuleLoadDataEx", code)
    with open_gpu() as engine:
        assert engine.code == engine.ptx == "compute_80"
        assert_answers(engine)
    assert len(loads(gpu)) == 2


def test_code_for_another_device_is_refused_and_the_ptx_loaded(folder: Path, gpu: StandIn) -> None:
    (folder / "page_scan.sm_80.cubin").write_bytes(compiled_code.elf(90))
    compiled_code.write_manifest(folder)
    with open_gpu() as engine:
        assert engine.code == "compute_80"
    no_binary = gpu.report("results")["CUDA_ERROR_NO_BINARY_FOR_GPU"]
    assert loads(gpu) == [no_binary, 0]


def test_where_the_ptx_is_refused_too_its_error_is_shown(folder: Path, gpu: StandIn) -> None:
    gpu.inject("cuModuleLoadDataEx", "CUDA_ERROR_INVALID_IMAGE", call=1)
    gpu.inject("cuModuleLoadDataEx", "CUDA_ERROR_JIT_COMPILER_NOT_FOUND", call=2)
    with pytest.raises(mg.DeviceUnavailableError, match="CUDA_ERROR_JIT_COMPILER_NOT_FOUND"):
        open_gpu()


def test_without_memory_for_the_code_the_ptx_is_not_tried(folder: Path, gpu: StandIn) -> None:
    gpu.inject("cuModuleLoadDataEx", "CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(mg.DeviceOutOfMemoryError, match=r"^cuModuleLoadDataEx failed"):
        open_gpu()
    assert len(loads(gpu)) == 1


# On a GPU


@pytest.mark.gpu
def test_compiled_code_is_loaded_and_answers_as_the_ptx_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = next(device for device in mg.driver_status().devices if device.usable)
    # The stand-in, by which tools/gpu/check.sh is tested, does not know this build's code.
    loadable = device.compiled if device.name != "Stand-in GPU" else ""
    for manifest, compiled in ((ptx.MANIFEST, loadable), ("hidden", "")):
        monkeypatch.setattr(ptx, "MANIFEST", manifest)
        engine: Any
        with open_gpu(f"cuda:{device.ordinal}") as engine:
            assert engine.code == (Path(compiled).stem.partition(".")[2] or engine.ptx)
            assert_answers(engine)
