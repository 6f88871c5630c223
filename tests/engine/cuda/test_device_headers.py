"""chacha20.h and dpf.h serve device code too: nvcc compiles them, without a warning."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("architecture", ["compute_80", "compute_90"])
def test_the_headers_compile_for_the_device(architecture: str, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc")
    ptx = tmp_path / "headers.ptx"
    command = [nvcc, "-ptx", "-std=c++17", f"-arch={architecture}", "-Werror", "all-warnings"]
    command += ["-I", str(TESTS.parent / "kernels"), "-o", str(ptx)]
    command.append(str(TESTS / "emulator" / "native" / "device_headers.cu"))
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    entries = [line for line in ptx.read_text().splitlines() if ".visible .entry" in line]
    assert len(entries) == 2
