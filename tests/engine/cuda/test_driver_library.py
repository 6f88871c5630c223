"""The reason that no GPU can be used, for a libcuda.so.1 that the CUDA bindings cannot use.

Each library here is built by the test. The bindings look for it in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from native_build import cxx

NO_DRIVER = "a libcuda.so.1 was loaded that is no driver (a stub?)"
TOO_OLD = (
    "the NVIDIA driver supports CUDA 11.4, and the page kernels need 13.0 or newer: "
    "update the driver"
)
STUB = 34  # CUDA_ERROR_STUB_LIBRARY

# CUDA's 12.0 brought cuGetProcAddress_v2. Bindings look for it first, and some demand it.
RESOLVES_NOTHING = "int cuGetProcAddress_v2(...) { return 500; }"
RESOLVES_ALL = """
#include <dlfcn.h>
int cuGetProcAddress_v2(const char* name, void** function, ...) {
  *function = dlsym(RTLD_DEFAULT, name);
  if (!*function) *function = reinterpret_cast<void*>(cuOther);
  return 0;
}
"""


def version(number: int, result: int = 0) -> str:
    return f"int cuDriverGetVersion(int* to) {{ *to = {number}; return {result}; }}\n"


def driver_reason(folder: Path) -> tuple[str, str]:
    """What a process finds that takes its libcuda.so.1 from a folder: the version, the reason."""
    script = (
        "import morphogen as mg\n"
        "status = mg.driver_status()\n"
        "print(status.driver_version); print(status.reason)\n"
        "assert not status.usable and not status.devices\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found, reason = result.stdout.splitlines()
    return found, reason


def build(folder: Path, code: str) -> None:
    source = folder / "driver.cpp"
    source.write_text(f'extern "C" {{\n{code}\n}}\n')
    command = [cxx(), "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", str(source)]
    subprocess.run([*command, "-o", str(folder / "libcuda.so.1")], check=True)


@pytest.mark.parametrize("resolver", ["", RESOLVES_NOTHING], ids=["none", "that finds nothing"])
def test_a_driver_older_than_the_bindings_is_too_old_not_missing(
    tmp_path: Path, resolver: str
) -> None:
    build(tmp_path, version(11040) + resolver)
    assert driver_reason(tmp_path) == ("11.4", TOO_OLD)


@pytest.mark.parametrize(
    "code",
    [
        "",
        RESOLVES_NOTHING,
        version(0),
        version(13000, STUB),
        version(0, STUB) + RESOLVES_NOTHING,
        version(0, STUB) + f"int cuOther(...) {{ return {STUB}; }}" + RESOLVES_ALL,
        version(13000) + f"int cuInit(unsigned) {{ return {STUB}; }}",
        version(13000) + f"int cuOther(...) {{ return {STUB}; }}" + RESOLVES_ALL,
        version(13000),
    ],
    ids=[
        "empty",
        "finds nothing",
        "no version",
        "stub",
        "stub that finds nothing",
        "stub that finds all",
        "initialises as a stub",
        "stub but for its version",
        "version alone",
    ],
)
def test_a_library_that_is_no_driver_is_called_so(tmp_path: Path, code: str) -> None:
    build(tmp_path, code)
    assert driver_reason(tmp_path)[1].endswith(NO_DRIVER)


def test_a_file_that_cannot_be_loaded_is_told_with_the_loaders_reason(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("no library")
    _, reason = driver_reason(tmp_path)
    assert reason.startswith("there is no NVIDIA driver: libcuda.so.1 cannot be loaded (")
    assert str(tmp_path) in reason
