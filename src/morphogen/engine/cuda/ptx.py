"""The page kernels that come with the package: PTX, which the driver compiles for its device.

Each of their sources has a file of its own, named by the least device that runs it. A device loads
the file of a source when something first wants a kernel of it. Beside the PTX may lie code that was
compiled from it for some devices when the package was built.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import morphogen.instruction_set as instruction_set

# The first driver that takes the version of PTX that nvcc 13.0 writes.
DRIVER_VERSION = 13000
SOURCE = "page_scan"  # of the kernels that every engine has
LEAST_COMPUTE_CAPABILITY = (8, 0)  # that its PTX is for
# The build puts it beside the compiled modules. An editable install has them in another folder than
# this file.
FOLDER = Path(instruction_set.__file__).resolve().parent / "ptx"
MANIFEST = "COMPILED.sha256"


def choose(compute_capability: tuple[int, int], source: str = SOURCE) -> Path | None:
    """The PTX of a source, if there is some that a device of this compute capability can run."""
    found = {_least(path): path for path in FOLDER.glob(f"{source}.compute_*.ptx")}
    usable = [least for least in found if least <= compute_capability]
    return found[max(usable)] if usable else None


def _least(path: Path) -> tuple[int, int]:
    """The compute capability that PTX is for: (8, 0) for compute_80."""
    return divmod(int(path.name.split(".")[1].removeprefix("compute_")), 10)


def choose_compiled(compute_capability: tuple[int, int], source: str = SOURCE) -> Path | None:
    """Code compiled from the PTX for devices of just this compute capability, if there is any.

    Notes
    -----
    A device would take code for a lower minor number, too, but a compiler makes other code for it.
    A file that does not match the digests of the build is stale, or damaged, and passed over.
    """
    major, minor = compute_capability
    path, manifest = FOLDER / f"{source}.sm_{major}{minor}.cubin", FOLDER / MANIFEST
    text = choose(compute_capability, source)
    if text is None or not path.is_file() or not manifest.is_file():
        return None
    recorded = set(manifest.read_text(encoding="utf-8", errors="replace").splitlines())
    found = {
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in (text, path)
    }
    return path if found <= recorded else None


def describe_version(version: int) -> str:
    """A CUDA version as people write it: 13.0 for 13000."""
    return f"{version // 1000}.{version % 1000 // 10}"
