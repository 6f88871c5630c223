"""The PTX that the wheel carries: made from these sources, and the same wherever it is made."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import make_ptx
import morphogen as mg
import morphogen.engine.cuda.ptx as package_ptx

MAX_CHUNK_KEYS = mg.planner.DEFAULT_MICRO_BATCH * mg.planner.MAX_KEYS_PER_QUERY
ENTRIES = {f"morphogen_scan_{keys}" for keys in range(1, MAX_CHUNK_KEYS + 1)}
ENTRIES |= {"morphogen_scan_12", "morphogen_scan_24", "morphogen_read", "morphogen_fill"}

PTX = {name: (make_ptx.COMMITTED / name).read_text() for name in make_ptx.FILES}
every_file = pytest.mark.parametrize("name", make_ptx.FILES)


@pytest.fixture
def nvcc() -> str:
    found = make_ptx.find_tool("nvcc")
    if found is None:
        pytest.skip(f"needs nvcc {make_ptx.RELEASE}")
    return found


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the kernels and of the script, to change."""
    root = tmp_path / "a copy"
    shutil.copytree(make_ptx.KERNELS, root / "kernels")
    (root / "tools" / "kernels").mkdir(parents=True)
    shutil.copy(make_ptx.__file__, root / "tools" / "kernels")
    return root


def run_script(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "tools" / "kernels" / "make_ptx.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# The committed file


def test_the_committed_ptx_is_made_from_these_sources() -> None:
    assert make_ptx.differences(nvcc=None) == []


@every_file
def test_a_13_0_driver_takes_the_ptx(name: str) -> None:
    assert re.findall(r"^\.version (.+)", PTX[name], re.M) == ["9.0"]
    target = name.split(".")[1].replace("compute_", "sm_")
    assert re.findall(r"^\.target (.+)", PTX[name], re.M) == [target]


def test_there_are_the_kernels_that_an_engine_asks_for() -> None:
    assert set(re.findall(r"\.visible \.entry (\w+)\(", PTX[make_ptx.DEFAULT])) == ENTRIES


@every_file
def test_the_ptx_says_nothing_of_where_it_was_made(name: str) -> None:
    code = re.sub("//.*", "", PTX[name])
    assert "/" not in code
    assert not re.search(r"_[0-9a-f]{8}_\d+_page_\w+_cu_", code)
    assert not re.search(r"\.(file|loc|section)\b", code)


def test_the_package_carries_what_is_committed() -> None:
    installed = Path(mg.planner.__file__).parent / "ptx"
    assert {path.name: path.read_text() for path in installed.glob("*.ptx")} == PTX


def test_the_build_installs_what_the_tool_makes(copied: Path) -> None:
    assert run_script(copied, "--list").stdout.split(";") == list(make_ptx.FILES)


def test_the_engine_finds_what_the_package_carries() -> None:
    # In an editable install, too, whose modules' sources lie elsewhere.
    found = package_ptx.choose((9, 0))
    assert found is not None
    assert found.read_text() == PTX[make_ptx.DEFAULT]


def test_a_device_takes_the_newest_ptx_of_a_source_that_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_ptx, "FOLDER", tmp_path)
    for name in ("one.compute_80.ptx", "one.compute_90.ptx", "one.compute_100.ptx", "other.txt"):
        (tmp_path / name).touch()
    chosen = {
        device: package_ptx.choose(device, "one") for device in ((7, 5), (8, 6), (9, 0), (12, 0))
    }
    assert chosen == {
        (7, 5): None,
        (8, 6): tmp_path / "one.compute_80.ptx",
        (9, 0): tmp_path / "one.compute_90.ptx",
        (12, 0): tmp_path / "one.compute_100.ptx",
    }
    assert package_ptx.choose((9, 0), "other") is None


# The output of nvcc


@pytest.mark.slow
def test_nvcc_makes_the_same_elsewhere_without_a_warning(nvcc: str, copied: Path) -> None:
    result = run_script(copied, "--nvcc", nvcc, "--output", str(copied / "made"))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert {path.name: path.read_text() for path in (copied / "made").glob("*.ptx")} == PTX


@pytest.mark.slow
def test_ptx_of_another_compilation_is_found(nvcc: str, copied: Path) -> None:
    ptx = copied / "kernels" / "ptx" / make_ptx.DEFAULT
    ptx.write_text(ptx.read_text() + "// by hand\n")
    manifest = copied / "kernels" / "ptx" / make_ptx.MANIFEST
    result = run_script(copied, "--check", "--nvcc", nvcc)
    assert (result.returncode, ptx.name in result.stderr) == (1, True)

    # Even if somebody set the digests right.
    digest = hashlib.sha256(ptx.read_bytes()).hexdigest()
    manifest.write_text(re.sub(f"\\w+(?=  {ptx.name})", digest, manifest.read_text()))
    assert run_script(copied, "--check", "--without-nvcc").returncode == 0
    result = run_script(copied, "--check", "--nvcc", nvcc)
    assert (result.returncode, ptx.name in result.stderr) == (1, True)


def test_a_warning_is_an_error(nvcc: str, copied: Path) -> None:
    source = copied / "kernels" / "page_scan.cu"
    source.write_text(source.read_text() + "static int nobody_uses_this() { return 1; }\n")
    result = run_script(copied, "--nvcc", nvcc, "--output", str(copied / "made"))
    assert result.returncode == 1
    assert "nobody_uses_this" in result.stderr


# The faults that --check finds


def test_headers_are_found_through_headers() -> None:
    found = make_ptx.sources()
    assert {make_ptx.source_of(name) for name in make_ptx.FILES} <= set(found)
    assert "dpf.h" in found
    assert "chacha20.h" in found, "which dpf.h includes"
    assert "simd.h" not in found, "which only the host uses"


@pytest.mark.parametrize("name", make_ptx.sources())
def test_a_changed_source_makes_the_ptx_stale(name: str, copied: Path) -> None:
    with (copied / "kernels" / name).open("a") as source:
        source.write("// changed\n")
    result = run_script(copied, "--check", "--without-nvcc")
    assert result.returncode == 1
    assert f"../{name}\n" in result.stderr
    assert "run tools/kernels/make_ptx.py" in result.stderr


def test_other_flags_make_the_ptx_stale(copied: Path) -> None:
    script = copied / "tools" / "kernels" / "make_ptx.py"
    script.write_text(script.read_text().replace('"-O3"', '"-O2"'))
    assert run_script(copied, "--check", "--without-nvcc").returncode == 1


def test_missing_ptx_is_found(copied: Path) -> None:
    (copied / "kernels" / "ptx" / make_ptx.DEFAULT).unlink()
    result = run_script(copied, "--check", "--without-nvcc")
    assert result.returncode == 1
    assert make_ptx.DEFAULT in result.stderr


# The choice of nvcc


def fake_nvcc(folder: Path, release: str) -> Path:
    folder.mkdir(parents=True)
    nvcc = folder / "nvcc"
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V{release}'\n")
    nvcc.chmod(0o755)
    return nvcc


def test_an_nvcc_of_another_release_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fake_nvcc(tmp_path / "system", "13.0.48")
    right = fake_nvcc(tmp_path / "packages" / "nvidia/cu13/bin", make_ptx.RELEASE)
    monkeypatch.setenv("PATH", f"{other.parent}:/bin")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "nothing")])
    assert make_ptx.find_tool("nvcc") is None
    monkeypatch.setattr(sys, "path", [str(tmp_path / "nothing"), str(tmp_path / "packages")])
    assert make_ptx.find_tool("nvcc") == str(right)
    result = run_script(make_ptx.KERNELS.parent, "--check", "--nvcc", str(other))
    assert result.returncode == 1
    assert "is not nvcc" in result.stderr


def test_internal_names_lose_hashes_and_process_ids() -> None:
    name = "_ZZN{}_INTERNAL_adcc45a4_12_page_scan_cu_da4c4a49_{}9morphogen4scanE4sums"
    short, long = name.format(46, 71), name.format(49, 71234)
    expected = "_ZZN9_INTERNAL9morphogen4scanE4sums"
    assert make_ptx.without_module_id(f".shared {short}[16];") == f".shared {expected}[16];"
    assert make_ptx.without_module_id(f".shared {long}[16];") == f".shared {expected}[16];"
