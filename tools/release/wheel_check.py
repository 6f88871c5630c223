"""Check that a wheel's binaries run elsewhere, which auditwheel and check-wheel-contents do not.

    python tools/release/wheel_check.py dist/*.whl
    python tools/release/wheel_check.py --objects build/wheel/cmake dist/*.whl

The libraries need no CUDA driver and contain no other library. On x86-64 only the kernels that are
chosen at run time use AVX. Exits with 1 and a line for each fault. Needs binutils.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# This module has several versions of its kernels, and chooses one when it is loaded.
MANY_VERSIONED = "instruction_set."
CUDA_SYMBOL = re.compile(r"(cu|cuda|nvrtc|nvml)[A-Z]\w+")
# AVX and its successors: their mnemonics begin with a v, or they use registers of their own.
AVX = re.compile(r"\t(v[a-z]\w+ .*|.*%[yz]mm\d.*|k[a-z]+[bwdq] .*%k\d.*)")


def run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def library_faults(library: Path) -> list[str]:
    """Return the symbols and instructions of a library that some machines lack."""
    undefined = run("nm", "--dynamic", "--undefined-only", "--format=just-symbols", library)
    names = [line.partition("@")[0] for line in undefined.split()]
    faults = [f"needs {name}" for name in names if CUDA_SYMBOL.fullmatch(name)]
    is_x86 = "x86-64" in run("objdump", "--file-headers", library)
    if is_x86 and not library.name.startswith(MANY_VERSIONED):
        faults += avx_faults(library)
    return [f"{library.name}: {fault}" for fault in faults]


def avx_faults(binary: Path) -> list[str]:
    """Return the first instruction that some x86-64 processors lack, if there is one."""
    listing = run("objdump", "--disassemble", "--no-show-raw-insn", binary)
    found = AVX.search(listing)
    return [f"not for every x86-64 processor: {found[1]}"] if found else []


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
            faults += [f"{path}: {fault}" for fault in avx_faults(path)]
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
