"""Check that a wheel's binaries run elsewhere, which auditwheel and check-wheel-contents do not.

    python tools/release/wheel_check.py dist/*.whl
    python tools/release/wheel_check.py --objects build/wheel/cmake dist/*.whl

The libraries need no CUDA driver and contain no other library. On x86-64 only the kernels that are
chosen at run time use AVX. On AArch64 nothing uses vector instructions newer than NEON. Exits with
1 and a line for each fault. Needs binutils, those of Debian's cross compiler for another machine.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# This module has several versions of its kernels, and chooses one when it is loaded.
MANY_VERSIONED = "instruction_set."
CUDA_SYMBOL = re.compile(r"(cu|cuda|nvrtc|nvml)[A-Z]\w+")
# The machines that wheels are for, by the number that ELF gives them.
MACHINES = {62: "x86-64", 183: "AArch64"}
NEWER = {
    # AVX and its successors: their mnemonics begin with a v, or they use registers of their own.
    "x86-64": re.compile(r"\t(v[a-z]\w+ .*|.*%[yz]mm\d.*|k[a-z]+[bwdq] .*%k\d.*)"),
    # Three-input logic, dot products, and the registers of SVE. Atomic instructions are no fault:
    # the compiler's own functions ask for them at run time.
    "AArch64": re.compile(
        r"\t((?:eor3|bcax|rax1|xar|[su]dot|[su]mmla)\t.*|.*\b[zp]\d+(?:\.[bhsdq]|/[mz])\b.*)"
    ),
}


def run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def library_faults(library: Path) -> list[str]:
    """Return the symbols and instructions of a library that some machines lack."""
    undefined = run("nm", "--dynamic", "--undefined-only", "--format=just-symbols", library)
    names = [line.partition("@")[0] for line in undefined.split()]
    faults = [f"needs {name}" for name in names if CUDA_SYMBOL.fullmatch(name)]
    if machine(library) != "x86-64" or not library.name.startswith(MANY_VERSIONED):
        faults += instruction_faults(library)
    return [f"{library.name}: {fault}" for fault in faults]


def machine(binary: Path) -> str:
    with binary.open("rb") as file:
        header = file.read(20)
    return MACHINES[int.from_bytes(header[18:], "little")]


def instruction_faults(binary: Path) -> list[str]:
    """Return the first instruction that some processors of a machine lack, if there is one."""
    name = machine(binary)
    # An objdump of one machine disassembles no other.
    cross = shutil.which("aarch64-linux-gnu-objdump") if name == "AArch64" else None
    listing = run(cross or "objdump", "--disassemble", "--no-show-raw-insn", binary)
    found = NEWER[name].search(listing)
    return [f"not for every {name} processor: {found[1]}"] if found else []


def object_faults(folder: Path) -> list[str]:
    """Return the functions of an x86-64 build that some processors lack the instructions for.

    An object of an instruction set may export only its table of kernels. If it had an inline
    function of the standard library, the linker might take that function for all other objects
    too.
    """
    faults = []
    objects = sorted(folder.rglob("*.o"))
    tables = {path: re.search(r"kernels_avx\w+(?=\.dir/)", str(path)) for path in objects}
    if not any(tables.values()):
        faults.append(f"{folder}: no objects of instruction sets")
    for path, table in tables.items():
        if table is None:
            faults += [f"{path}: {fault}" for fault in instruction_faults(path)]
            continue
        for line in run("nm", "--demangle", "--defined-only", "--extern-only", path).splitlines():
            symbol = line.partition(" ")[2][2:]
            if symbol and symbol != f"morphogen::{table[0]}":
                faults.append(f"{path}: others may call {symbol}")
    return faults


def wheel_faults(wheel: Path) -> list[str]:
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        libraries = sorted(Path(folder).rglob("*.so*"))
        faults = [
            f"brings {path.name}" for path in libraries if path.parent.suffix == ".libs"
        ]  # auditwheel grafts these
        for library in libraries:
            faults += library_faults(library)
    return [f"{wheel.name}: {fault}" for fault in faults]


def main() -> int:
    parser = argparse.ArgumentParser(description="Check that the binaries of wheels run elsewhere.")
    parser.add_argument("wheels", metavar="WHEEL", type=Path, nargs="+")
    parser.add_argument("--objects", metavar="DIR", type=Path, help="of the build, on x86-64")
    options = parser.parse_args()
    faults = object_faults(options.objects) if options.objects else []
    for wheel in options.wheels:
        faults += wheel_faults(wheel)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
