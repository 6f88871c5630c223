"""The doctor: its findings, and the faults that it notices."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import sys
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

import make_cubins
import morphogen
import morphogen.cli.diagnosis as diagnosis
import morphogen.engine.cuda.ptx as ptx
import morphogen.engine.cuda.status as status
import reference
from compiled_code import install
from morphogen import DriverStatus, PageMatrix, instruction_set
from morphogen.cli import main
from morphogen.engine.cpu import CpuEngine

NO_DRIVER = "there is no NVIDIA driver: none was found"


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine without a driver, even if this one has one."""
    for module in (status, diagnosis):
        monkeypatch.setattr(module, "driver_status", lambda: DriverStatus("", (), NO_DRIVER))


def run_json(capsys, code: int = 0) -> dict:
    assert main(["doctor", "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_doctor(capsys, no_gpu):
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert re.search(rf"^device +cpu: no GPU: {NO_DRIVER} *$", output, re.MULTILINE)
    assert "instruction set" in output
    for name in instruction_set.supported():
        assert re.search(rf"self test, {name} +passed", output)


def test_doctor_json(capsys, no_gpu):
    data = run_json(capsys)
    with CpuEngine(PageMatrix(np.zeros((1, 1), dtype=np.uint8))) as opened:
        assert data["instruction_set"] == opened.instruction_set
        assert data["read_order"] == opened.read_order
        assert data["read_order_source"] == opened.read_order_source
        assert data["threads"] == opened.threads
    assert data["ok"] is True
    assert data["device"] == "cpu"
    assert data["gpu_engine"] is False
    assert data["driver"] == {"driver_version": "", "devices": [], "reason": NO_DRIVER}
    assert data["gpu_checks"] == []
    assert data["morphogen"] == morphogen.__version__
    assert data["numpy"] == np.__version__
    assert data["compiled"] == list(instruction_set.compiled())
    assert data["supported"] == list(instruction_set.supported())
    assert data["cores"] == os.cpu_count()
    assert data["checks"] == [
        {"instruction_set": name, "fault": ""} for name in instruction_set.supported()
    ]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("2.60.0", "clusters Ray 2.60.0"),
        ("", "clusters none without Ray: pip install 'morphogen[ray]'"),
    ],
)
def test_doctor_tells_whether_this_machine_can_be_one_of_a_cluster(
    capsys, monkeypatch, no_gpu, version, words
):
    found = dataclasses.replace(diagnosis.examine(), ray=version)
    monkeypatch.setattr(diagnosis, "examine", lambda: found)
    assert main(["doctor"]) == 0
    assert words in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("installed", [True, False])
def test_the_version_of_ray_is_read_without_importing_it(monkeypatch, installed):
    def version(name: str) -> str:
        assert name == "ray"
        if not installed:
            raise PackageNotFoundError(name)
        return "2.60.0"

    monkeypatch.setattr(diagnosis, "version", version)
    assert diagnosis.examine().ray == ("2.60.0" if installed else "")
    assert "ray" not in sys.modules


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("make", "read order rows: was faster on processors of this make"),
        ("measurement", "read order rows: was faster in a short measurement"),
    ],
)
def test_doctor_tells_what_decided_the_order_of_reads(capsys, monkeypatch, no_gpu, source, words):
    found = dataclasses.replace(diagnosis.examine(), read_order="rows", read_order_source=source)
    monkeypatch.setattr(diagnosis, "examine", lambda: found)
    assert main(["doctor"]) == 0
    assert words in " ".join(capsys.readouterr().out.split())


def test_doctor_knows_the_right_answers():
    keys = reference.gen(700, 1025, bytes(range(0x11, 0x41)))
    bits = tuple(hashlib.sha256(reference.eval_full(key, 1025)).hexdigest() for key in keys)
    assert bits == diagnosis._BITS_SHA256
    pages = [index.to_bytes(4, "little") for index in range(1025)]
    assert tuple(reference.answer(pages, key).hex() for key in keys) == diagnosis._ANSWERS


@pytest.mark.parametrize(
    ("name", "wrong", "fault"),
    [
        ("_BITS_SHA256", ("", ""), "selection bits differ"),
        ("_ANSWERS", ("82040001", ""), "party 0 answered 82040000, not 82040001"),
        ("_known_answer_fault", lambda *where: 1 / 0, "ZeroDivisionError"),
        ("reconstruct", lambda *answers: np.zeros((4, 3, 331), np.uint8), "gave wrong pages"),
    ],
)
def test_doctor_notices(capsys, monkeypatch, no_gpu, name, wrong, fault):
    monkeypatch.setattr(diagnosis, name, wrong)
    assert main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert "FAILED" in output
    assert fault in " ".join(output.split())
    assert "Do not use it" in output
    assert run_json(capsys, 1)["ok"] is False


# With a GPU


@pytest.mark.parametrize("devices", [1, 2])
def test_doctor_with_gpus(gpu, capsys, devices):
    gpu.set(devices=devices, compute_capability=90, multiprocessors=6)
    assert main(["doctor"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "device cuda:0: the first GPU that can be used; the driver supports CUDA 13.0" in output
    for ordinal in range(devices):
        assert (
            f"cuda:{ordinal} Stand-in GPU, compute capability 9.0, 6 multiprocessors, 1.0 GiB, "
            "runs page_scan.compute_80.ptx"
        ) in output
        assert f"self test, cuda:{ordinal} passed" in output
    assert ("self test, cuda:all passed" in output) == (devices > 1)
    assert "All well." in output

    data = run_json(capsys)
    assert data["ok"] is True
    assert data["gpu_engine"] is True
    assert data["device"] == "cuda:0"
    assert data["gpu_checks"] == [
        {"device": device, "fault": "", "refused": ""}
        for device in ([], ["cuda:0"], ["cuda:0", "cuda:1", "cuda:all"])[devices]
    ]
    assert data["driver"]["driver_version"] == "13.0"
    assert data["driver"]["reason"] == ""
    assert [found["ordinal"] for found in data["driver"]["devices"]] == list(range(devices))
    assert data["driver"]["devices"][0]["compute_capability"] == [9, 0]
    assert data["driver"]["devices"][0]["memory"] == 1 << 30


def test_the_gpu_is_tested_one_by_one_and_in_chunks(gpu):
    assert diagnosis.examine().gpu_checks == (diagnosis.GpuCheck("cuda:0", "", ""),)
    # One key; one query of three; two queries.
    assert {launch.kernel for launch in gpu.launches()} == {
        "morphogen_scan_1",
        "morphogen_scan_3",
        "morphogen_scan_6",
    }


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"driver_version": 12080},
            "the NVIDIA driver supports CUDA 12.8, and the page kernels need 13.0 or newer: "
            "update the driver",
        ),
        ({"devices": 0}, "the NVIDIA driver shows no device"),
        (
            {"init_error": 803},
            "the NVIDIA driver cannot be used: cuInit failed: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        ),
        (
            {"compute_capability": 75},
            "cuda:0, Stand-in GPU, has compute capability 7.5, and the page kernels need 8.0 or "
            "more",
        ),
    ],
)
def test_what_is_missing_for_the_gpu(gpu, capsys, settings, words):
    gpu.set(**settings)
    assert main(["doctor"]) == 0, "no GPU is no failure"
    output = " ".join(capsys.readouterr().out.split())
    assert f"device cpu: no GPU: {words}" in output
    assert "self test, cuda" not in output
    data = run_json(capsys)
    assert data["gpu_engine"] is False
    assert words in data["driver"]["reason"]
    assert "\n" not in data["driver"]["reason"]


def test_compiled_code_for_the_gpu_is_named(gpu, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(ptx, "MANIFEST", make_cubins.MANIFEST)
    monkeypatch.setattr(ptx, "FOLDER", tmp_path / "ptx")
    install(gpu, tmp_path / "ptx")
    gpu.set(compute_capability=90)
    assert main(["doctor"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "1.0 GiB, runs page_scan.sm_90.cubin " in output
    assert "self test, cuda:0 passed" in output


def test_a_driver_without_its_compiler_is_no_failure(gpu, capsys):
    for call in (1, 2):  # of the default device, and of the self test
        gpu.inject("cuModuleLoadDataEx", "CUDA_ERROR_JIT_COMPILER_NOT_FOUND", call=call)
    assert main(["doctor"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "device cpu: the GPU is refused, see its self test" in output
    assert (
        "self test, cuda:0 not possible: cuModuleLoadDataEx failed: "
        "CUDA_ERROR_JIT_COMPILER_NOT_FOUND (PTX JIT compiler library not found)"
    ) in output


def test_a_full_gpu_is_no_failure(gpu, capsys):
    gpu.set(free_memory=100)
    data = run_json(capsys)
    (check,) = data["gpu_checks"]
    assert check["fault"] == ""
    assert re.search(r"need \d+ bytes .* on cuda:0, and \d+ are free", check["refused"])
    assert data["device"] == "cpu"
    assert main(["doctor"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "device cpu: the GPU is refused, see its self test" in output
    assert f"self test, cuda:0 not possible: {check['refused']}" in output


def test_all_of_many_gpus_are_tested_together(gpu):
    gpu.set(devices=5)
    gpu.set_device(3, compute_capability=75)
    *each, together = diagnosis.examine().gpu_checks
    assert [check.device for check in each] == ["cuda:0", "cuda:1", "cuda:2", "cuda:4"]
    assert together == diagnosis.GpuCheck("cuda:all", "", "")


def test_a_fault_of_gpus_together_is_told(gpu, monkeypatch):
    gpu.set(devices=2)

    def fault_of(device, name=None, leaves=3):
        return "wrong pages" if device == "cuda:all" else ""

    monkeypatch.setattr(diagnosis, "_fetch_fault", fault_of)
    found = diagnosis.examine()
    assert found.gpu_checks[-1] == diagnosis.GpuCheck("cuda:all", "wrong pages", "")
    assert not found.ok


# The first opening is that of the default device, the second that of a self test.
@pytest.mark.parametrize(("call", "device"), [(1, "cpu"), (2, "cuda:0")])
def test_a_gpu_that_takes_no_kernels_is_no_failure(gpu, capsys, call, device):
    gpu.inject("cuModuleLoadDataEx", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", call=call)
    data = run_json(capsys)
    assert data["ok"] is True
    assert data["device"] == device
    refused = data["gpu_checks"][0]["refused"]
    assert ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION" in refused) == (call == 2)


def test_a_wrong_answer_of_the_gpu_is_noticed(gpu, capsys, monkeypatch):
    from morphogen.engine.cuda import CudaEngine

    answer = CudaEngine.answer

    def flipped(self, *arguments, **options):
        result = answer(self, *arguments, **options)
        result.pages[-1, -1, -1] ^= 1
        return result

    monkeypatch.setattr(CudaEngine, "answer", flipped)
    assert main(["doctor"]) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "self test, cuda:0 FAILED: party 0 answered 82040001, not 82040000" in output
    assert "Do not use it" in output
    data = run_json(capsys, 1)
    assert data["ok"] is False
    assert not any(check["fault"] for check in data["checks"])


@pytest.mark.parametrize("lost", [False, True])
def test_a_gpu_that_breaks_down_has_failed(gpu, capsys, lost):
    gpu.inject("cuLaunchKernel", "CUDA_ERROR_LAUNCH_FAILED", call=3, device_lost=lost)
    data = run_json(capsys, 1)
    assert data["gpu_checks"][0]["fault"].startswith("DeviceError: cuLaunchKernel failed: ")
    gpu.clear()


def test_what_is_said_of_a_gpu_that_breaks_down(gpu, capsys):
    gpu.inject("cuLaunchKernel", "CUDA_ERROR_ILLEGAL_ADDRESS", sticky=True)
    assert main(["doctor"]) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert (
        "self test, cuda:0 FAILED: DeviceError: cuLaunchKernel failed: CUDA_ERROR_ILLEGAL_ADDRESS "
        "(an illegal memory access was encountered)"
    ) in output
    assert "This installation gives wrong results here. Do not use it." in output
    gpu.clear()


@pytest.mark.gpu
def test_doctor_on_a_gpu(capsys):
    data = run_json(capsys)
    assert data["ok"] is True
    assert data["device"].startswith("cuda:")
    assert data["gpu_checks"]
