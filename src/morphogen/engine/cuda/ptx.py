"""The page kernels that come with the package: PTX, which the driver compiles for its device.

Beside it may lie code that was compiled from it for some devices when the package was built.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import morphogen.instruction_set as instruction_set

# The first driver that takes the version of PTX that nvcc 13.0 writes.
DRIVER_VERSION = 13000
NAME = "page_scan.compute_80.ptx"
LEAST_COMPUTE_CAPABILITY = (8, 0)
# The build puts it beside the compiled modules. An editable install has them in another folder than
# this file.
FOLDER = Path(instruction_set.__file__).resolve().parent / "ptx"
MANIFEST = "COMPILED.sha256"


def choose(compute_capability: tuple[int, int]) -> Path | None:
    """The PTX, if there is one and a device of this compute capability can run it."""
    path = FOLDER / NAME
    return path if compute_capability >= LEAST_COMPUTE_CAPABILITY and path.is_file() else None


def choose_compiled(compute_capability: tuple[int, int]) -> Path | None:
    """Code compiled from the PTX for devices of just this compute capability, if there is any.

    Notes
    -----
    A device would take code for a lower minor number, too, but a compiler makes other code for it.
    A file that does not match the digests of the build is stale, or damaged, and passed over.
    """
    major, minor = compute_capability
    source, path = choose(compute_capability), FOLDER / f"page_scan.sm_{major}{minor}.cubin"
    manifest = FOLDER / MANIFEST
    if source is None or not path.is_file() or not manifest.is_file():
        return None
    recorded = set(manifest.read_text(encoding="utf-8", errors="replace").splitlines())
    found = {
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in (source, path)
    }
    return path if found <= recorded else None


def describe_version(version: int) -> str:
    """A CUDA version as people write it: 13.0 for 13000."""
    return f"{version // 1000}.{version % 1000 // 10}"
