"""What docs/install.md says of drivers for CUDA 12: what it would take to include them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from naive import naive_answers, random_rows, random_table
from native_build import cxx
from standin_driver import LIBRARY, StandIn, environment

import gpu_budget
import make_ptx
import morphogen as mg
import morphogen.engine.cuda.ptx as ptx
import ptx_cost

TABLE = random_table(150, 40)
BATCH = mg.make_queries(random_rows(5, 3, len(TABLE)), len(TABLE))[0]
NEEDED = "8.1"  # parameters of more than 4 KiB

# A driver that has nothing, and tells what it is asked for.
ASKED = """
#include <cstdio>
extern "C" int cuGetProcAddress_v2(const char* name, void** address, int version,
                                   unsigned long long, int*) {
  std::printf("%s %d\\n", name, version);
  std::fflush(stdout);
  *address = nullptr;
  return 500;
}
"""


def called_functions() -> set[str]:
    """The driver's functions that the engine calls."""
    sources = Path(make_ptx.KERNELS.parent, "src/morphogen/engine").glob("*.pyx")
    found = {
        name for path in sources for name in re.findall(r"\bcu\.(cu[A-Z]\w+)\(", path.read_text())
    }
    # As cuda.h defines it.
    return {name + "WithFlags" if name == "cuGraphInstantiate" else name for name in found}


def test_the_bindings_ask_a_driver_for_little_that_is_newer_than_cuda_12_0(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings", reason="needs cuda-bindings")
    (tmp_path / "asked.cpp").write_text(ASKED)
    link = ["-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}", "-o", LIBRARY]
    subprocess.run([cxx(), "asked.cpp", *link], cwd=tmp_path, check=True)
    code = "from cuda.bindings import driver\ntry: driver.cuInit(0)\nexcept RuntimeError: pass"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    asked = {name: int(version) for name, version in map(str.split, result.stdout.splitlines())}
    called = called_functions()
    assert len(called) > 30
    assert called <= asked.keys()
    assert {name for name in called if asked[name] > 12000} == {"cuEventElapsedTime"}
    assert asked["cuEventElapsedTime"] == 12080


def test_the_engine_runs_relabelled_ptx_over_what_says_that_it_is_cuda_12_1(
    gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ptx.targets().values():
        (tmp_path / path.name).write_text(ptx_cost.relabelled(path.read_text(), NEEDED))
    gpu.set(driver_version=12010, compute_capability=90)
    assert not mg.driver_status().usable
    monkeypatch.setattr(ptx, "DRIVER_VERSION", 12010)
    mg.driver_status.cache_clear()
    with pytest.raises(mg.DeviceUnavailableError, match=r"current version is '8\.1'"):
        mg.open_engine(mg.PageMatrix(TABLE), device="cuda:0")
    monkeypatch.setattr(ptx, "FOLDER", tmp_path)
    mg.driver_status.cache_clear()
    naive = naive_answers(TABLE, BATCH)
    engine: Any
    with mg.open_engine(mg.PageMatrix(TABLE), device="cuda:0") as engine:
        assert np.array_equal(engine.answer(BATCH).pages, naive)
        answer = engine.answer(BATCH, max_micro_batch=8, lanes=4, graph=True)
        assert np.array_equal(answer.pages, naive)
        engine.time_phases(BATCH)


@pytest.mark.parametrize(
    ("release", "isa"),
    [
        ("12.0.140", "8.0"),
        ("12.5.40", "8.5"),
        ("12.6.85", "8.5"),
        ("12.9.86", "8.8"),
        ("13.0.88", "9.0"),
    ],
)
def test_the_newest_ptx_of_a_release(release: str, isa: str) -> None:
    assert ptx_cost.newest_isa(release) == isa


def test_cuda_11_is_not_compared() -> None:
    with pytest.raises(SystemExit, match="too old"):
        ptx_cost.newest_isa("11.8.89")


@pytest.fixture
def tools() -> tuple[str, str]:
    found = gpu_budget.find_tools()
    if found is None:
        pytest.skip(f"needs {gpu_budget.NEEDED}")
    return found


def test_ptxas_makes_the_same_of_relabelled_ptx_and_refuses_the_parameters_in_8_0(
    tools: tuple[str, str],
) -> None:
    text = (make_ptx.COMMITTED / make_ptx.ptx_name("compute_80")).read_text()
    codes = [
        ptx_cost.examine(tools, relabelled, "", "sm_80")
        for relabelled in (text, ptx_cost.relabelled(text, NEEDED))
    ]
    assert codes[0] == codes[1]
    assert (codes[0].spills, codes[0].excesses) == (0, 0)
    with pytest.raises(ptx_cost.CompilerError, match="too much parameter space"):
        ptx_cost.examine(tools, ptx_cost.relabelled(text, "8.0"), "", "sm_80")


def test_a_hint_is_left_out_below_8_3() -> None:
    text = '// .version 9.0\n.version 9.0\n\t.pragma "used_bytes_mask 3";\n\tret;\n'
    assert ptx_cost.relabelled(text, "8.3") == text.replace("\n.version 9.0", "\n.version 8.3")
    assert ptx_cost.relabelled(text, "8.1") == "// .version 9.0\n.version 8.1\n\tret;\n"
