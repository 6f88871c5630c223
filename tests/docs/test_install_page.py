"""docs/install.md: what it shows of the doctor is what the doctor prints, and its claims hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import doctor_cases
import make_ptx
import marked_markdown
import morphogen.engine.cuda.ptx as ptx
import ptx_cost

PAGE = make_ptx.KERNELS.parent / "docs" / "install.md"


def written_by(tool: str) -> str:
    begin, end = marked_markdown.markers(tool)
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    return rest.partition(end)[0].strip()


def test_the_page_shows_what_the_doctor_prints(native_folder: Path) -> None:
    pytest.importorskip("cuda.bindings", reason="needs cuda-bindings")
    assert written_by(doctor_cases.TOOL) == doctor_cases.markdown(native_folder)


def test_only_what_is_said_of_gpus_is_shown() -> None:
    printed = (
        "morphogen            0.1.0\n"
        "device               cpu: no GPU: a\n"
        "                     reason\n"
        "instruction set      avx2\n"
        "                     more of it\n"
        "self test, avx2      passed\n"
        "self test, cuda:0    passed\n"
        "All well.\n"
    )
    assert doctor_cases.about_gpus(printed).splitlines() == [
        "device               cpu: no GPU: a",
        "                     reason",
        "self test, cuda:0    passed",
        "All well.",
    ]


def test_the_page_names_the_driver_that_the_package_asks_for() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"for CUDA {ptx.describe_version(ptx.DRIVER_VERSION)} or newer" in text
    for path in make_ptx.COMMITTED.glob("*.ptx"):
        (version,) = re.findall(r"^\.version (.+)$", path.read_text(), re.M)
        assert f"`.version {version}`" in text


def test_the_figures_are_of_the_kernels_that_there_are() -> None:
    figures = written_by(ptx_cost.TOOL)
    text = (make_ptx.COMMITTED / make_ptx.ptx_name("compute_80")).read_text()
    entries = re.findall(r"\.visible \.entry (\w+)\(", text)
    assert re.findall(r"^\| (all|morphogen_\w+) \|", figures, re.M) == ["all", *entries]
    assert f"ptxas {make_ptx.RELEASE}" in figures
