"""Compiled code beside the PTX: how a build makes it, with real ptxas."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import make_cubins
import make_ptx
import morphogen as mg
import morphogen.engine.cuda.ptx as ptx
from compiled_code import CUBINS
from naive import random_pages
from standin_driver import StandIn


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, make_cubins.__file__, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_ptxas_compiles_the_committed_ptx(
    gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if make_ptx.find_tool("ptxas") is None:
        pytest.skip(f"needs ptxas {make_ptx.RELEASE}")
    result = run_script("--output", str(tmp_path))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    made = {*make_cubins.cubins(), make_cubins.MANIFEST}
    assert {path.name for path in tmp_path.iterdir()} == made
    source = Path(shutil.copy(make_ptx.COMMITTED / make_ptx.DEFAULT, tmp_path))
    monkeypatch.setattr(ptx, "FOLDER", tmp_path)
    monkeypatch.setattr(ptx, "MANIFEST", make_cubins.MANIFEST)
    for architecture, name in CUBINS.items():
        assert ptx.choose_compiled(divmod(architecture, 10)) == tmp_path / name
        code = (tmp_path / name).read_bytes()
        for kernel in ("morphogen_scan_1", "morphogen_scan_24", "morphogen_read"):
            assert f".text.{kernel}\0".encode() in code
        gpu.add_compiled(code, source.read_text(), architecture)
    # A real file is recognised: the stand-in's own tests may use files that only look like one.
    gpu.set(compute_capability=90)
    with mg.open_engine(mg.PageMatrix(random_pages(70, 64)), device="cuda:0") as engine:
        assert getattr(engine, "code", None) == "sm_90"


def test_the_build_and_the_package_mean_the_same_manifest() -> None:
    assert make_cubins.MANIFEST == ptx.MANIFEST


def test_each_device_has_code_of_the_newest_ptx_that_it_runs() -> None:
    names = ["one.compute_90.ptx", "one.compute_80.ptx", "other.compute_90.ptx"]
    assert make_cubins.cubins(names) == {
        "one.sm_80.cubin": ("one.compute_80.ptx", "sm_80"),
        "one.sm_90.cubin": ("one.compute_90.ptx", "sm_90"),
        "one.sm_100.cubin": ("one.compute_90.ptx", "sm_100"),
        "other.sm_90.cubin": ("other.compute_90.ptx", "sm_90"),
        "other.sm_100.cubin": ("other.compute_90.ptx", "sm_100"),
    }


def test_the_build_installs_what_the_tools_make() -> None:
    listed = run_script("--list")
    assert listed.stdout.split(";") == [*make_cubins.cubins(), make_cubins.MANIFEST]


def test_another_ptxas_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "ptxas"
    other.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.48'\n")
    other.chmod(0o755)
    result = run_script("--ptxas", str(other), "--output", str(tmp_path / "made"))
    assert result.returncode == 1
    assert f"ptxas {make_ptx.RELEASE} is needed" in result.stderr
    assert not (tmp_path / "made").exists()


def test_ptx_that_ptxas_refuses_stops_the_build(tmp_path: Path) -> None:
    ptxas = make_ptx.find_tool("ptxas")
    if ptxas is None:
        pytest.skip(f"needs ptxas {make_ptx.RELEASE}")
    (tmp_path / make_ptx.DEFAULT).write_text(".version 9.0\nbogus\n")
    result = run_script("--ptx", str(tmp_path), "--output", str(tmp_path / "made"))
    assert result.returncode == 1
    assert "Ptx assembly aborted" in result.stderr
    assert not (tmp_path / "made" / make_cubins.MANIFEST).exists()
