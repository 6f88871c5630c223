"""What is shipped: the files of the package, of its wheel and of its source distribution."""

from __future__ import annotations

import importlib.resources
import io
import json
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import jsonschema_rs
import pytest

import build_wheel
import wheel_contents
from native_build import cxx

WHEEL = "morphogen-0.1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
SUFFIX = ".cpython-311-x86_64-linux-gnu.so"
PROJECT = tomllib.loads((wheel_contents.ROOT / "pyproject.toml").read_text())


def origin(installed: Distribution) -> dict[str, Any]:
    """Where pip took the distribution from: what its direct_url.json says."""
    text = installed.read_text("direct_url.json")
    return dict(json.loads(text)) if text else {}


@pytest.fixture
def wheel_file() -> Path:
    """The wheel file that the package of these tests was installed from."""
    url = urlsplit(origin(distribution("morphogen")).get("url", ""))
    path = Path(unquote(url.path))
    if url.scheme != "file" or path.suffix != ".whl" or not path.exists():
        pytest.skip("needs morphogen installed from a wheel file: build_wheel.py makes one")
    return path


@pytest.fixture
def check() -> Any:
    pytest.importorskip("elftools", reason="needs pyelftools (extra wheel)")
    if shutil.which("objdump") is None or shutil.which("nm") is None:
        pytest.skip("needs binutils")
    import wheel_check

    return wheel_check


# What is installed, and what is shipped


def test_what_is_installed_is_exactly_what_is_expected() -> None:
    installed = distribution("morphogen")
    if origin(installed).get("dir_info", {}).get("editable"):
        pytest.skip("needs morphogen installed, and not editable")
    files = {str(file) for file in installed.files or []}
    package = {name for name in files if name.startswith("morphogen/")}
    package -= {name for name in package if "/__pycache__/" in name}
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    compiled = not package.isdisjoint(wheel_contents.COMPILED)  # all of it, or nothing
    expected = wheel_contents.package_files(suffix, compiled)
    assert wheel_contents.differences(package, expected) == []
    elsewhere = {name for name in files - package if not name.startswith("morphogen-")}
    assert {Path(name).name for name in elsewhere if "/__pycache__/" not in name} == {"morphogen"}


def test_the_wheel_holds_exactly_what_is_expected_and_runs_elsewhere(
    wheel_file: Path, check: Any
) -> None:
    assert check.wheel_faults(wheel_file) == []
    with zipfile.ZipFile(wheel_file) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        assert b"version 9.0" in archive.read("morphogen/ptx/page_scan.compute_80.ptx")


def test_the_source_distribution_holds_exactly_what_is_expected(
    wheel_file: Path, check: Any
) -> None:
    path = wheel_file.parent / f"morphogen-{distribution('morphogen').version}.tar.gz"
    if not path.exists():
        pytest.skip("needs a source distribution beside the wheel: build_wheel.py makes one")
    assert check.sdist_faults(path) == []


def test_extras() -> None:
    extras = distribution("morphogen").metadata.get_all("Provides-Extra") or []
    assert {"cuda", "server", "client", "plot", "docs"} <= set(extras)


# What is expected


def test_of_the_sources_a_wheel_holds_what_runs_and_what_others_compile_against() -> None:
    files = wheel_contents.wheel_files(WHEEL)
    assert f"morphogen/planner{SUFFIX}" in files
    assert {"morphogen/planner.pxd", "morphogen/planner.pyi", "morphogen/py.typed"} <= files
    assert "morphogen/ptx/page_scan.compute_80.ptx" in files
    assert "morphogen/ptx/page_scan.sm_90.cubin" in files
    assert "morphogen-0.1.0.dist-info/licenses/LICENSE" in files
    assert {name for name in files if name.endswith(".pxd")} == {"morphogen/planner.pxd"}
    assert not [name for name in files if name.endswith((".pyx", ".cpp", ".h", ".cu"))]


def test_every_cython_module_is_expected() -> None:
    package = wheel_contents.SOURCES / "morphogen"
    modules = {str(path.relative_to(package).with_suffix("")) for path in package.rglob("*.pyx")}
    assert modules == set(wheel_contents.EXTENSIONS)


@pytest.mark.parametrize(
    "name",
    [
        "morphogen-0.1.0.tar.gz",
        "other-0.1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "morphogen-0.1.0-py3-none-any.whl",
        "morphogen-0.1.0-cp311-cp311-win_amd64.whl",
    ],
)
def test_a_file_that_is_no_wheel_of_ours(name: str) -> None:
    with pytest.raises(ValueError, match=r"^expected .*, not "):
        wheel_contents.wheel_files(name)


# Faults are found


def archive(path: Path, names: set[str], content: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w") as written:
        for name in sorted(names):
            written.writestr(name, b"" if name.endswith(".so") else content)
    return path


def test_other_files_in_a_wheel_are_found(
    check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "binary_faults", lambda name, content: [])
    expected = wheel_contents.wheel_files(WHEEL)
    assert check.wheel_faults(archive(tmp_path / WHEEL, expected)) == []
    ptx = "morphogen/ptx/page_scan.compute_80.ptx"
    other = expected - {ptx} | {"morphogen/dpf.pyx", "morphogen.libs/libcuda.so.1"}
    assert check.wheel_faults(archive(tmp_path / WHEEL, other)) == [
        f"missing: {ptx}",
        "unexpected: morphogen.libs/libcuda.so.1",
        "unexpected: morphogen/dpf.pyx",
    ]
    large = archive(tmp_path / WHEEL, expected, b"x" * 100_000)
    assert check.wheel_faults(large) == [
        f"expected less than 3000000 bytes, not {large.stat().st_size}"
    ]


def test_other_files_in_a_source_distribution_are_found(check: Any, tmp_path: Path) -> None:
    path = tmp_path / "morphogen-0.1.0.tar.gz"
    expected = wheel_contents.sdist_files(path.name)
    assert f"morphogen-0.1.0/kernels/ptx/{wheel_contents.make_ptx.MANIFEST}" in expected
    with tarfile.open(path, "w:gz") as written:
        for name in expected - {"morphogen-0.1.0/tools/kernels/make_ptx.py"} | {
            "morphogen-0.1.0/.netrc"
        }:
            written.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert check.sdist_faults(path) == [
        "missing: morphogen-0.1.0/tools/kernels/make_ptx.py",
        "unexpected: morphogen-0.1.0/.netrc",
    ]


def compiled(folder: Path, source: str, *flags: str) -> bytes:
    (folder / "source.cpp").write_text(source)
    output = folder / "library.so"
    command = [cxx(), "-shared", "-fPIC", "source.cpp", "-o", str(output), *flags]
    subprocess.run(command, cwd=folder, check=True)
    return output.read_bytes()


PLAIN = 'extern "C" int one() { return 1; }'
DRIVER = 'extern "C" int cuInit(unsigned); int start() { return cuInit(0); }'
PATH = 'extern "C" const char* where() { return "/builds/of/somebody/file.h"; }'


@pytest.mark.parametrize(
    ("source", "flags", "fault"),
    [
        (PLAIN, ("-s",), None),
        (PLAIN, (), "not stripped: .symtab"),
        (PLAIN, ("-s", "-Wl,-rpath,/opt/toolkit"), "looks for libraries in a folder (DT_R"),
        (DRIVER, ("-s",), "needs cuInit"),
        (PLAIN, ("-s", "-Wl,--no-as-needed", "-L.", "-l:libcuda.so.1"), "links to libcuda.so.1"),
        (PATH, ("-s",), "names the path /builds/of/somebody/file.h"),
    ],
)
def test_binaries_that_are_tied_to_a_machine_are_found(
    check: Any, tmp_path: Path, source: str, flags: tuple[str, ...], fault: str | None
) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(compiled(tmp_path, PLAIN, "-Wl,-soname,libcuda.so.1"))
    found = check.binary_faults("morphogen/dpf.so", compiled(tmp_path, source, *flags))
    if fault is None:
        assert found == []
    else:
        assert any(line.startswith(f"morphogen/dpf.so: {fault}") for line in found)


LOOP = 'extern "C" void add(float* a) { for (int i = 0; i < 64; ++i) a[i] += 1; }'


@pytest.mark.parametrize("flag", ["-mavx2", "-mavx512f"])
def test_instructions_that_some_processors_lack_are_found(
    check: Any, tmp_path: Path, flag: str
) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("this machine cannot run the instruction set: it is no x86-64")
    library = compiled(tmp_path, LOOP, "-s", "-O3", flag)
    (fault,) = check.binary_faults("morphogen/planner.so", library)
    assert fault.startswith("morphogen/planner.so: not for every x86-64 processor: v")
    assert check.binary_faults("morphogen/instruction_set.so", library) == []
    assert check.binary_faults("morphogen/planner.so", compiled(tmp_path, LOOP, "-s", "-O3")) == []


def test_functions_that_others_may_take_from_an_instruction_set_are_found(
    check: Any, tmp_path: Path
) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("this machine cannot run the instruction set: it is no x86-64")
    for name, source in {
        "kernels_avx2": "namespace morphogen { extern const int kernels_avx2 = 1; } "
        "inline int shared() { return 1; } int (*take)() = shared;",
        "kernels_baseline": PLAIN,
    }.items():
        folder = tmp_path / f"{name}.dir"
        folder.mkdir()
        (folder / "source.cpp").write_text(source)
        subprocess.run([cxx(), "-c", "source.cpp", "-o", "kernels.o"], cwd=folder, check=True)
    path = tmp_path / "kernels_avx2.dir" / "kernels.o"
    assert check.object_faults(tmp_path) == [
        f"{path}: others may call shared()",
        f"{path}: others may call take",
    ]
    assert check.object_faults(tmp_path / "kernels_baseline.dir") != []


# How wheels are built


def test_a_build_takes_no_flags_from_its_surroundings(tmp_path: Path) -> None:
    outer = {
        "PATH": "/bin",
        "CXX": "clang++",
        "CXXFLAGS": "-march=native",
        "LDFLAGS": "-Wl,-rpath,/opt",
        "CMAKE_ARGS": "-DMORPHOGEN_CUDA=OFF",
        "SKBUILD_CMAKE_BUILD_TYPE": "Debug",
        "CUDA_HOME": "/usr/local/cuda",
    }
    environment = build_wheel.build_environment(outer, tmp_path)
    assert environment == {"PATH": f"{tmp_path}:/bin", "CXX": "clang++"}


def test_an_empty_environment_has_no_compiler(tmp_path: Path) -> None:
    outer = {"PATH": "/usr/bin", "PIP_RETRIES": "1", "CUDA_HOME": "/usr/local/cuda"}
    environment = build_wheel.empty_environment(outer, tmp_path)
    assert environment == {
        "PATH": str(tmp_path),
        "PIP_RETRIES": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    (tmp_path / "gcc").write_text("#!/bin/sh\n")
    (tmp_path / "gcc").chmod(0o755)
    with pytest.raises(SystemExit, match=r"^expected no compiler in .*, not gcc$"):
        build_wheel.empty_environment(outer, tmp_path)


def test_cibuildwheel_understands_its_configuration() -> None:
    pytest.importorskip("cibuildwheel", reason="needs cibuildwheel (extra wheel)")
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers"]
    result = subprocess.run(
        [*command, "--platform", "linux", str(wheel_contents.ROOT)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(result.stdout.split()) == [
        f"cp3{minor}-manylinux_{machine}"
        for minor in (11, 12, 13, 14)
        for machine in ("aarch64", "x86_64")
    ]


def test_cibuildwheel_knows_every_setting() -> None:
    pytest.importorskip("cibuildwheel", reason="needs cibuildwheel (extra wheel)")
    schema = importlib.resources.files("cibuildwheel") / "resources/cibuildwheel.schema.json"
    validator = jsonschema_rs.validator_for(json.loads(schema.read_text(encoding="utf-8")))
    settings = PROJECT["tool"]["cibuildwheel"]
    validator.validate(settings)
    assert not validator.is_valid(settings | {"test-comand": "misspelt"})


def test_cibuildwheel_compiles_with_the_pinned_nvcc() -> None:
    before = PROJECT["tool"]["cibuildwheel"]["linux"]["before-all"]
    pins = set(PROJECT["project"]["optional-dependencies"]["kernels"])
    used = {word for word in before.split() if "==" in word}
    assert used <= pins
    assert {pin.partition("==")[0] for pin in used} == {
        "nvidia-cuda-crt",
        "nvidia-cuda-nvcc",
        "nvidia-cuda-runtime",
        "nvidia-nvvm",
    }


def test_cibuildwheel_runs_tests_that_are_there() -> None:
    settings = PROJECT["tool"]["cibuildwheel"]
    assert set(settings["test-extras"]) <= set(PROJECT["project"]["optional-dependencies"])
    tests = [word for line in settings["test-command"] for word in line.split() if "tests/" in word]
    assert len(tests) > 3
    for name in [*tests, *settings["test-sources"]]:
        assert (wheel_contents.ROOT / name).exists(), name
