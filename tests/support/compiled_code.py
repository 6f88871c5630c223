"""A package's folder of kernels as a build leaves it that found ptxas, for the stand-in driver."""

from __future__ import annotations

import hashlib
import shutil
import struct
from pathlib import Path

import make_cubins
import make_ptx
from standin_driver import StandIn

# By the architecture, 90 for sm_90: the file.
CUBINS = {
    int(architecture.removeprefix("sm_")): make_cubins.cubin_name(architecture)
    for architecture in make_cubins.ARCHITECTURES
}


def elf(architecture: int) -> bytes:
    """What stands for compiled code: an ELF header that tells where the file ends."""
    body = f"code for sm_{architecture}".encode().ljust(24, b"\0")
    sizes = (64, 0, 0, len(body), 1, 0)  # of the header, program headers, section headers
    return struct.pack("<4s12x2HI3QI6H", b"\x7fELF", 2, 190, 1, 0, 0, 64, 0, *sizes) + body


def write_manifest(folder: Path) -> None:
    """Record the files that are there now."""
    files = [path for path in sorted(folder.iterdir()) if path.name != make_cubins.MANIFEST]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in files]
    (folder / make_cubins.MANIFEST).write_text("\n".join(lines) + "\n")


def install(standin: StandIn, folder: Path) -> None:
    """Put the committed PTX there and what stands for compiled code, and tell the stand-in."""
    folder.mkdir()
    path = make_ptx.COMMITTED / make_ptx.PTX
    shutil.copy(path, folder)
    for architecture, name in CUBINS.items():
        (folder / name).write_bytes(elf(architecture))
        standin.add_compiled(elf(architecture), path.read_text(), architecture)
    write_manifest(folder)
