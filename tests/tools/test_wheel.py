"""The shipped files, and binaries that run elsewhere."""

from __future__ import annotations

import importlib.resources
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

import build_wheel
import make_cubins
import make_ptx
import wheel_check
from native_build import cxx

ROOT = build_wheel.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CIBUILDWHEEL = PROJECT["tool"]["cibuildwheel"]


def origin(installed: Distribution) -> dict[str, Any]:
    """Return the source that pip installed the distribution from, by its direct_url.json."""
    text = installed.read_text("direct_url.json")
    return dict(json.loads(text)) if text else {}


def test_the_package_holds_its_modules_stubs_and_kernels_and_nothing_else() -> None:
    installed = distribution("morphogen")
    if origin(installed).get("dir_info", {}).get("editable"):
        pytest.skip("needs morphogen installed, and not editable")
    found = {str(file) for file in installed.files or [] if file.parts[0] == "morphogen"}
    source = ROOT / "src" / "morphogen"
    modules = {str(path.relative_to(source)) for path in source.rglob("*.py")}
    cython = {str(path.relative_to(source).with_suffix("")) for path in source.rglob("*.pyx")}
    stubs = {f"{name}.pyi" for name in cython}
    shared = "_cython"  # what Cython writes for all of them
    libraries = {name + sysconfig.get_config_var("EXT_SUFFIX") for name in {*cython, shared}}
    others = {"planner.pxd", "py.typed", *(f"ptx/{name}" for name in make_ptx.FILES)}
    expected = {f"morphogen/{name}" for name in modules | stubs | libraries | others}
    cubins = {make_cubins.MANIFEST, *make_cubins.cubins()}
    compiled = {f"morphogen/ptx/{name}" for name in cubins}  # if the build had ptxas
    assert {name for name in found if "__pycache__" not in name} - compiled == expected
    assert not found & compiled or found > compiled


def test_extras() -> None:
    extras = distribution("morphogen").metadata.get_all("Provides-Extra") or []
    assert {"cuda", "server", "client", "plot", "docs"} <= set(extras)


# The check of binaries


@pytest.fixture
def binutils() -> None:
    if shutil.which("objdump") is None or shutil.which("nm") is None:
        pytest.skip("needs binutils")
    if platform.machine() != "x86_64":
        pytest.skip("this machine cannot run the instruction set: it is no x86-64")


def compiled(output: Path, source: str, *flags: str, compiler: str | None = None) -> Path:
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [compiler or cxx(), "-x", "c++", "-", "-fPIC", "-o", str(output), *flags]
    subprocess.run(command, input=source, text=True, check=True)
    return output


PLAIN = 'extern "C" int one() { return 1; }'
DRIVER = 'extern "C" int cuInit(unsigned); extern "C" int start() { return cuInit(0); }'
LOOP = 'extern "C" void add(float* a) { for (int i = 0; i < 64; ++i) a[i] += 1; }'


@pytest.mark.usefixtures("binutils")
@pytest.mark.parametrize(
    ("source", "flags", "fault"),
    [
        (PLAIN, (), ""),
        (LOOP, ("-O3",), ""),
        (DRIVER, (), "needs cuInit"),
        (LOOP, ("-O3", "-mavx2"), "not for every x86-64 processor: v"),
        (LOOP, ("-O3", "-mavx512f"), "not for every x86-64 processor: v"),
    ],
)
def test_libraries_that_do_not_run_everywhere_are_found(
    tmp_path: Path, source: str, flags: tuple[str, ...], fault: str
) -> None:
    library = compiled(tmp_path / "planner.so", source, "-shared", *flags)
    found = wheel_check.library_faults(library)
    assert len(found) == bool(fault)
    assert all(line.startswith(f"planner.so: {fault}") for line in found)
    # The module that chooses between its kernels may contain all instructions.
    chosen = library.rename(tmp_path / "instruction_set.so")
    assert bool(wheel_check.library_faults(chosen)) == ("cuInit" in fault)


XOR = """extern "C" void add(long* a, long* b, long* c) {
  for (int i = 0; i < 64; ++i) a[i] ^= b[i] ^ c[i];
}"""


@pytest.mark.parametrize(
    ("march", "fault"), [("armv8-a", ""), ("armv8.2-a+sha3", "eor3"), ("armv8.2-a+sve", "")]
)
def test_libraries_that_do_not_run_on_every_aarch64_are_found(
    tmp_path: Path, march: str, fault: str
) -> None:
    compiler = "aarch64-linux-gnu-g++"
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    flags = ("-shared", "-O3", f"-march={march}")
    # No kernels are chosen at run time there, so the module that does so is checked too.
    library = compiled(tmp_path / "instruction_set.so", XOR, *flags, compiler=compiler)
    found = wheel_check.library_faults(library)
    assert len(found) == (march != "armv8-a")
    start = f"instruction_set.so: not for every AArch64 processor: {fault}"
    assert all(line.startswith(start) for line in found)


@pytest.mark.usefixtures("binutils")
def test_a_library_that_a_wheel_brings_along_is_found(tmp_path: Path) -> None:
    library = compiled(tmp_path / "one.so", PLAIN, "-shared")
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as archive:
        archive.write(library, "morphogen/planner.so")
        archive.write(library, "morphogen.libs/libcuda.so.1")
    assert wheel_check.wheel_faults(tmp_path / "some.whl") == ["some.whl: brings libcuda.so.1"]


@pytest.mark.usefixtures("binutils")
def test_functions_that_others_may_take_from_an_instruction_set_are_found(tmp_path: Path) -> None:
    source = (
        "namespace morphogen { extern const int kernels_avx2 = 1; } "
        "inline int shared() { return 1; } int (*take)() = shared;"
    )
    path = compiled(tmp_path / "kernels_avx2.dir" / "kernels.o", source, "-c")
    compiled(tmp_path / "kernels_baseline.dir" / "kernels.o", PLAIN, "-c")
    assert wheel_check.object_faults(tmp_path) == [
        f"{path}: others may call shared()",
        f"{path}: others may call take",
    ]
    assert wheel_check.object_faults(tmp_path / "kernels_baseline.dir") != []


# Builds of wheels


def test_a_build_takes_no_flags_from_its_surroundings(tmp_path: Path) -> None:
    outer = {"PATH": "/bin", "CXX": "clang++", "CXXFLAGS": "-march=native", "CUDA_HOME": "/cuda"}
    environment = build_wheel.build_environment(outer, tmp_path)
    assert environment == {"PATH": f"{tmp_path}{os.pathsep}/bin", "CXX": "clang++"}


def test_cibuildwheel_understands_its_configuration() -> None:
    pytest.importorskip("cibuildwheel", reason="needs cibuildwheel (extra wheel)")
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers"]
    result = subprocess.run(
        [*command, "--platform", "linux", str(ROOT)], capture_output=True, text=True, check=True
    )
    assert sorted(result.stdout.split()) == [
        f"cp3{minor}-manylinux_{machine}"
        for minor in (11, 12, 13, 14)
        for machine in ("aarch64", "x86_64")
    ]
    schema = importlib.resources.files("cibuildwheel") / "resources/cibuildwheel.schema.json"
    validator = jsonschema_rs.validator_for(json.loads(schema.read_text(encoding="utf-8")))
    validator.validate(CIBUILDWHEEL)


def test_cibuildwheel_compiles_with_the_pinned_nvcc() -> None:
    pins = set(PROJECT["project"]["optional-dependencies"]["kernels"])
    used = {word for word in CIBUILDWHEEL["linux"]["before-all"].split() if "==" in word}
    assert len(used) == 4
    assert used <= pins


def test_cibuildwheel_runs_tests_that_are_there() -> None:
    assert set(CIBUILDWHEEL["test-extras"]) <= set(PROJECT["project"]["optional-dependencies"])
    tests = [word for line in CIBUILDWHEEL["test-command"] for word in line.split() if "/" in word]
    assert len(tests) > 3
    for name in [*tests, *CIBUILDWHEEL["test-sources"]]:
        assert (ROOT / name).exists(), name
