"""Gen, and the tree and leaf steps of Eval, neither branch on secrets nor index memory by them.

constant_time.cpp marks the secrets as undefined, and valgrind's memcheck reports all uses of them.
It looks at the machine code that the compiler made, so several builds are checked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import morphogen as mg
from tiers import UNSUPPORTED

TESTS = Path(__file__).resolve().parents[1]
KERNELS = TESTS.parent / "kernels"
FOUND = 99  # valgrind's exit status if it reports something

# valgrind knows no AVX-512. The AVX-512 code comes from the same lines as the other builds.
BUILDS = {
    "baseline, -O2": ["-O2"],
    "baseline, -O3": ["-O3"],
    "avx2, -O2": ["-O2", "-mavx2"],
    "avx2, -O3": ["-O3", "-mavx2"],
}


def checked(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Compile the program with options and run it under memcheck."""
    compiler, valgrind = shutil.which(os.environ.get("CXX", "g++")), shutil.which("valgrind")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    if valgrind is None:
        pytest.skip("needs valgrind")
    includes = subprocess.run(
        [compiler, "-E", "-x", "c++", "-"],
        input="#include <valgrind/memcheck.h>\n",
        capture_output=True,
        text=True,
    )
    if includes.returncode:
        pytest.skip("needs valgrind's headers")
    program = directory / "constant_time"
    source = TESTS / "dpf" / "constant_time.cpp"
    common = ["-std=c++17", "-g", "-Wno-psabi", f"-I{KERNELS}"]
    subprocess.run([compiler, *common, *options, source, "-o", program], check=True)
    return subprocess.run(
        [valgrind, "-q", f"--error-exitcode={FOUND}", program], capture_output=True, text=True
    )


@pytest.mark.parametrize("build", BUILDS)
def test_nothing_depends_on_secrets(build: str, tmp_path: Path) -> None:
    if "avx2" in build and "avx2" not in mg.instruction_set.supported():
        pytest.skip(f"{UNSUPPORTED} avx2")
    result = checked(tmp_path, *BUILDS[build])
    assert result.stderr == ""
    assert result.stdout == "under valgrind\ndone\n"
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("leak", "report"),
    [
        ("LEAK_BRANCH", "Conditional jump or move depends on uninitialised value"),
        ("LEAK_INDEX", "Use of uninitialised value"),
    ],
)
def test_the_check_can_fail(leak: str, report: str, tmp_path: Path) -> None:
    result = checked(tmp_path, "-O3", f"-D{leak}")
    assert report in result.stderr
    assert "leak(" in result.stderr
    assert result.returncode == FOUND
