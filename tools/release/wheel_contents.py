"""What a wheel and a source distribution hold: exactly these files.

Python modules follow the sources; all else is listed here, so that nothing comes along unseen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "kernels"))

import make_cubins
import make_ptx

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src"

# Cython modules: each is a shared library and a stub.
EXTENSIONS = (
    "dpf",
    "instruction_set",
    "planner",
    "engine/_driver",
    "engine/cpu",
    "engine/cuda",
    "engine/device_pages",
    "engine/lane",
    "engine/page_kernel",
)
# Declarations for Cython modules of users: those that need neither our C++ nor CUDA's headers.
DECLARATIONS = ("planner.pxd",)
KERNELS = (f"ptx/{make_ptx.PTX}",)
# Where ptxas was there when the package was built.
COMPILED = tuple(
    f"morphogen/ptx/{name}"
    for name in (*map(make_cubins.cubin_name, make_cubins.ARCHITECTURES), make_cubins.MANIFEST)
)
DATA = ("py.typed", *KERNELS)
METADATA = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")

# Besides all of kernels/ and src/.
SDIST_FILES = (
    "CHANGELOG.md",
    "CMakeLists.txt",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "pyproject.toml",
    "tools/kernels/make_cubins.py",
    "tools/kernels/make_ptx.py",
)
SDIST_SUFFIXES = {".cpp", ".cu", ".h", ".ptx", ".pxd", ".py", ".pyi", ".pyx", ".sha256", ".typed"}


def package_files(extension_suffix: str, compiled: bool = True) -> set[str]:
    """What the folder of the installed package holds, from ``morphogen/`` on.

    Parameters
    ----------
    extension_suffix
        Of the shared libraries, such as ``.cpython-311-x86_64-linux-gnu.so``.
    compiled
        Whether it was built where ptxas was there.
    """
    package = SOURCES / "morphogen"
    names = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    for extension in EXTENSIONS:
        names |= {f"{extension}{extension_suffix}", f"{extension}.pyi"}
    files = {f"morphogen/{name}" for name in names.union(DECLARATIONS, DATA)}
    return files.union(COMPILED) if compiled else files


def wheel_files(name: str) -> set[str]:
    """What a wheel of this file name holds.

    Raises
    ------
    ValueError
        If the name is not that of a wheel of ours for CPython on Linux.
    """
    parts = name.removesuffix(".whl").split("-")
    if not name.endswith(".whl") or len(parts) != 5 or parts[0] != "morphogen":
        raise ValueError(f"expected morphogen-VERSION-PYTHON-ABI-PLATFORM.whl, not {name}")
    _, version, _, abi, platform = parts
    machine = next((known for known in ("x86_64", "aarch64") if platform.endswith(known)), None)
    if not abi.startswith("cp3") or machine is None:
        raise ValueError(f"expected CPython 3 on Linux, x86_64 or aarch64, not {abi}-{platform}")
    metadata = {f"morphogen-{version}.dist-info/{file}" for file in METADATA}
    return metadata | package_files(f".cpython-{abi.removeprefix('cp')}-{machine}-linux-gnu.so")


def sdist_files(name: str) -> set[str]:
    """What a source distribution of this file name holds."""
    folder = name.removesuffix(".tar.gz")
    files = set(SDIST_FILES)
    for top in ("kernels", "src"):
        found = (path for path in (ROOT / top).rglob("*") if path.suffix in SDIST_SUFFIXES)
        files |= {str(path.relative_to(ROOT)) for path in found}
    return {f"{folder}/{file}" for file in files}


def differences(found: Iterable[str], expected: Iterable[str]) -> list[str]:
    """What is missing, and what nobody expected."""
    missing, unexpected = set(expected) - set(found), set(found) - set(expected)
    return [f"missing: {name}" for name in sorted(missing)] + [
        f"unexpected: {name}" for name in sorted(unexpected)
    ]
