"""A folder of kernels as a build with ptxas leaves it, for the stand-in driver."""

from __future__ import annotations

import hashlib
import shutil
import struct
from pathlib import Path

import make_cubins
import make_ptx
from standin_driver import StandIn

# The default kernels' files of compiled code by their architecture, 90 for sm_90.
CUBINS = {
    int(architecture.removeprefix("sm_")): cubin
    for cubin, (name, architecture) in make_cubins.cubins().items()
    if name == make_ptx.DEFAULT
}


def elf(architecture: int) -> bytes:
    """Return a stand-in for compiled code: an ELF header that tells where the file ends."""
    body = f"code for sm_{architecture}".encode().ljust(24, b"\0")
    sizes = (64, 0, 0, len(body), 1, 0)  # of the header, program headers, section headers
    return struct.pack("<4s12x2HI3QI6H", b"\x7fELF", 2, 190, 1, 0, 0, 64, 0, *sizes) + body


def write_manifest(folder: Path) -> None:
    """Record the files of a folder."""
    files = [path for path in sorted(folder.iterdir()) if path.name != make_cubins.MANIFEST]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in files]
    (folder / make_cubins.MANIFEST).write_text("\n".join(lines) + "\n")


def install(standin: StandIn, folder: Path) -> None:
    """Fill a folder with the committed PTX and stand-ins for compiled code; tell the driver."""
    folder.mkdir()
    path = make_ptx.COMMITTED / make_ptx.DEFAULT
    shutil.copy(path, folder)
    for architecture, name in CUBINS.items():
        (folder / name).write_bytes(elf(architecture))
        standin.add_compiled(elf(architecture), path.read_text(), architecture)
    write_manifest(folder)
