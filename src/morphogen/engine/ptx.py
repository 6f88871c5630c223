"""The page kernels that come with the package: PTX, which the driver compiles for its device."""

from __future__ import annotations

import re
from pathlib import Path

from morphogen import instruction_set

# The first driver that takes the version of PTX that nvcc 13.0 writes.
DRIVER_VERSION = 13000
# The build puts it beside the compiled modules, which an editable install has elsewhere than this
# file.
FOLDER = Path(instruction_set.__file__).resolve().parent / "ptx"


def targets() -> dict[tuple[int, int], Path]:
    """The files of PTX, by the least compute capability that each is for."""
    found = {}
    for path in sorted(FOLDER.glob("*.ptx")):
        match = re.fullmatch(r"page_scan\.compute_(\d+)(\d)\.ptx", path.name)
        if match:
            found[int(match[1]), int(match[2])] = path
    return found


def choose(compute_capability: tuple[int, int]) -> Path | None:
    """The newest PTX that a device of this compute capability can run, if there is one."""
    usable = [target for target in targets() if target <= compute_capability]
    return targets()[max(usable)] if usable else None


def describe_version(version: int) -> str:
    """A CUDA version as people write it: 13.0 for 13000."""
    return f"{version // 1000}.{version % 1000 // 10}"
