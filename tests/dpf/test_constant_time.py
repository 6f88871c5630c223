"""Gen, and the tree and leaf steps of Eval, neither branch on secrets nor index memory by them.

constant_time.cpp marks the secrets as undefined, and valgrind's memcheck reports all uses of them.
It looks at the machine code that the compiler made, so several builds are checked, and the
installed module, to which Cython adds code of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import morphogen as mg
from tiers import UNSUPPORTED

TESTS = Path(__file__).resolve().parents[1]
KERNELS = TESTS.parent / "kernels"
FOUND = 99  # valgrind's exit status if it reports something

# valgrind knows no AVX-512. The AVX-512 code comes from the same lines as the other builds, and as
# that of two vectors of nodes side by side.
BUILDS = {
    "baseline, -O2": ["-O2"],
    "baseline, -O3": ["-O3"],
    "avx2, -O2": ["-O2", "-mavx2"],
    "avx2, -O3": ["-O3", "-mavx2"],
    "two vectors, avx2, -O3": ["-O3", "-mavx2", "-DMORPHOGEN_NODE_VECTORS=2"],
}


def tools() -> tuple[str, str]:
    """Return the compiler and valgrind, or skip the test."""
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
    return compiler, valgrind


def checked(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Compile the program with options and run it under memcheck."""
    compiler, valgrind = tools()
    program = directory / "constant_time"
    source = TESTS / "dpf" / "constant_time.cpp"
    common = ["-std=c++17", "-g", "-Wno-psabi", f"-I{KERNELS}"]
    subprocess.run([compiler, *common, *options, source, "-o", program], check=True)
    return subprocess.run(
        [valgrind, "-q", f"--error-exitcode={FOUND}", program], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "build",
    [pytest.param(name, marks=pytest.mark.slow if "-O2" in name else ()) for name in BUILDS],
)
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


@pytest.mark.slow
def test_nothing_in_the_installed_module_depends_on_secrets(tmp_path: Path) -> None:
    compiler, valgrind = tools()
    marks = tmp_path / "marks.so"
    source = TESTS / "dpf" / "memcheck_marks.cpp"
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", marks], check=True)
    program = TESTS / "dpf" / "constant_time_module.py"
    result = subprocess.run(
        # The checks tell that a number with one defined bit that is set is not zero.
        [valgrind, "-q", "--expensive-definedness-checks=yes", sys.executable, program, marks],
        env={**os.environ, "PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    first, *lines, last = result.stdout.splitlines()
    assert first == "under valgrind"
    calls = {"gen", "gen with entropy", "gen_many", "make_query", "eval_full", "restrict"}
    assert set(lines) == {f"{call} 0" for call in calls}, result.stderr
    assert last == "leak 1"
