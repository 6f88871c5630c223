"""The wheels that a host with a GPU need not be sent."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import left_out
import requirements


def wheel(folder: Path, name: str, *requires: str) -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        lines = [f"Name: {name}", *(f"Requires-Dist: {line}" for line in requires)]
        file.writestr(f"{name}-1.0.dist-info/METADATA", "\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("has", "dropped"),
    [
        ("", set()),
        ("left_pad==1.5", {"left_pad"}),
        ("Left.Pad==2.5  # newer than allowed", set()),
        ("left-pad", {"left_pad"}),  # of some version, which is taken to do
        ("pinned", set()),
        ("pinned==3.1", {"pinned"}),
        ("other==1\nuser==1.0", {"user"}),
        ("left_pad @ file:///built/there", set()),
    ],
)
def test_what_the_host_has_is_left_out_if_it_meets_all_requirements(
    tmp_path: Path, has: str, dropped: set[str]
) -> None:
    needs = ("left-pad>=1.2,<2", "pinned==3.1", "absent==1; python_version < '3'")
    wheels = [
        wheel(tmp_path, "user", *needs),
        *(wheel(tmp_path, n) for n in ("left_pad", "pinned")),
    ]
    found = left_out.left_out(wheels, left_out.read_list(has), "3.12")
    assert {path.name.split("-")[0] for path in found} == dropped


@pytest.mark.parametrize("text", ["Package Version\n------- -------\nnumpy   2.1.0", "numpy>=2"])
def test_a_list_in_another_format_is_refused(text: str) -> None:
    with pytest.raises(SystemExit, match="pip list --format=freeze"):
        left_out.read_list(text)


def test_the_pinned_headers_are_sent_whatever_a_host_has_of_their_package(tmp_path: Path) -> None:
    """A build from source needs them, and nothing is known of the host's version."""
    folder = Path(left_out.__file__).parent
    usual = left_out.read_list((folder / "have.txt").read_text(encoding="utf-8"))
    assert {"numpy", "hypothesis", "cuda-bindings"} <= usual.keys()
    wheels = [wheel(tmp_path, name) for name in ("numpy", "cuda_bindings")]
    assert [path.name[:5] for path in left_out.left_out(wheels, usual, "3.12")] == ["numpy"]


def test_what_is_fetched_is_what_pyproject_names() -> None:
    """It is for the build, the package, its tests and asv."""
    command = [sys.executable, requirements.__file__]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert run.stdout.splitlines() == requirements.to_build() + requirements.to_run()
    text = requirements.PROJECT.read_text(encoding="utf-8")
    assert all(line in text for line in run.stdout.splitlines())

    def names(lines: list[str]) -> set[str]:
        return {re.split(r"[<>=~!;\[ ]", line)[0] for line in lines}

    assert names(requirements.to_build()) >= {"cython", "cython-cmake", "cuda-bindings"}
    run_time = names(requirements.to_run())
    assert run_time >= {"numpy", "rich", "cryptography", "pytest", "asv"}
    assert run_time >= {"h11", "litestar", "matplotlib"}, "of the extras that others name"
    assert not run_time & {"cython-cmake", "morphogen"}, "no index has the package itself"
