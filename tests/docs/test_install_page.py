"""docs/install.md names the driver that the package requires."""

from __future__ import annotations

import re

import make_ptx
import morphogen.engine.cuda.ptx as ptx

PAGE = make_ptx.KERNELS.parent / "docs" / "install.md"


def test_the_page_names_the_driver_that_the_package_asks_for() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"for CUDA {ptx.describe_version(ptx.DRIVER_VERSION)} or newer" in text
    for path in make_ptx.COMMITTED.glob("*.ptx"):
        (version,) = re.findall(r"^\.version (.+)$", path.read_text(), re.M)
        assert f"`.version {version}`" in text
