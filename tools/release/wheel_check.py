"""Check wheels and source distributions: what they hold, and that the binaries run elsewhere.

    python tools/release/wheel_check.py dist/*.whl dist/*.tar.gz
    python tools/release/wheel_check.py --objects build/wheel/cmake dist/*.whl

Exits with 1 and a line for each fault. `pip install '.[wheel]'` brings pyelftools.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from wheel_contents import differences, sdist_files, wheel_files

MAX_BYTES = 3_000_000
# What every Linux with the C++ runtime has.
LIBRARIES = {
    "ld-linux-aarch64.so.1",
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "libstdc++.so.6",
}
# The one module whose kernels are compiled several times, and chosen when it is loaded.
MANY_VERSIONED = "morphogen/instruction_set."
# An absolute path of two or more folders: where something was built, or where it looks.
ABSOLUTE_PATH = re.compile(rb"(?<![\w./<])/(?:[\w.+-]+/){2,}[\w.+-]+")
CUDA_SYMBOL = re.compile(r"(cu|cuda|nvrtc|nvml)[A-Z]\w+")
# AVX and what came after: their mnemonics begin with a v, or they use registers of their own.
AVX = re.compile(r"\t(v[a-z]\w+ .*|.*%[yz]mm\d.*|k[a-z]+[bwdq] .*%k\d.*)")


def binary_faults(name: str, content: bytes) -> list[str]:
    """What ties a shared library to the machine that it was built on, or to CUDA."""
    elf = ELFFile(io.BytesIO(content))
    faults = []
    sections = {section.name for section in elf.iter_sections()}
    for section in sorted(sections):
        if section.startswith(".debug") or section in {".symtab", ".GCC.command.line"}:
            faults.append(f"{name}: not stripped: {section}")
    dynamic, symbols = map(elf.get_section_by_name, (".dynamic", ".dynsym"))
    if not isinstance(dynamic, DynamicSection) or not isinstance(symbols, SymbolTableSection):
        return [f"{name}: expected a shared library"]
    for tag in dynamic.iter_tags():
        needed = getattr(tag, "needed", None)
        if needed is not None and needed not in LIBRARIES:
            faults.append(f"{name}: links to {needed}")
        if tag.entry.d_tag in {"DT_RPATH", "DT_RUNPATH"}:
            faults.append(f"{name}: looks for libraries in a folder ({tag.entry.d_tag})")
    for symbol in symbols.iter_symbols():
        if symbol.entry.st_shndx == "SHN_UNDEF" and CUDA_SYMBOL.fullmatch(symbol.name):
            faults.append(f"{name}: needs {symbol.name}")
    for path in sorted(set(ABSOLUTE_PATH.findall(content))):
        faults.append(f"{name}: names the path {path.decode()}")
    if elf.get_machine_arch() == "x64" and not name.startswith(MANY_VERSIONED):
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            faults += [f"{name}: {line}" for line in avx_instructions(Path(file.name))]
    return faults


def avx_instructions(binary: Path) -> list[str]:
    """The first instruction that some x86-64 processors lack, if there is one."""
    listing = run("objdump", "--disassemble", "--no-show-raw-insn", str(binary))
    found = next(AVX.finditer(listing), None)
    return [f"not for every x86-64 processor: {found[1]}"] if found else []


def object_faults(folder: Path) -> list[str]:
    """What of a build's object files might run where it cannot.

    An object of an instruction set may give away nothing but its table of kernels. Had it an inline
    function of the standard library, the linker might take that for all the others, too.
    """
    faults = []
    objects = sorted(folder.rglob("*.o"))
    tables = {path: re.search(r"kernels_avx\w+(?=\.dir/)", str(path)) for path in objects}
    if not any(tables.values()):
        faults.append(f"{folder}: no objects of instruction sets: this checks builds for x86-64")
    for path, table in tables.items():
        if table is None:
            faults += [f"{path}: {line}" for line in avx_instructions(path)]
            continue
        listing = run("nm", "--demangle", "--defined-only", "--extern-only", str(path))
        for line in listing.splitlines():
            symbol = line.partition(" ")[2][2:]
            if symbol and symbol != f"morphogen::{table[0]}":
                faults.append(f"{path}: others may call {symbol}")
    return faults


def run(tool: str, *arguments: str) -> str:
    if shutil.which(tool) is None:
        raise SystemExit(f"needs {tool}, of the package binutils")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True).stdout


def wheel_faults(path: Path) -> list[str]:
    """What is wrong with a wheel: its size, what it holds, and its binaries."""
    faults = []
    if (size := path.stat().st_size) >= MAX_BYTES:
        faults.append(f"expected less than {MAX_BYTES} bytes, not {size}")
    with zipfile.ZipFile(path) as wheel:
        files = {entry.filename for entry in wheel.infolist() if not entry.is_dir()}
        faults += differences(files, wheel_files(path.name))
        for name in sorted(files):
            if name.endswith(".so") or ".so." in name:
                faults += binary_faults(name, wheel.read(name))
    return faults


def sdist_faults(path: Path) -> list[str]:
    """What is wrong with a source distribution."""
    with tarfile.open(path) as archive:
        files = {entry.name for entry in archive.getmembers() if not entry.isdir()}
    return differences(files, sdist_files(path.name))


def main() -> int:
    parser = argparse.ArgumentParser(description="Check wheels and source distributions.")
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+", help=".whl or .tar.gz")
    parser.add_argument(
        "--objects", metavar="DIR", type=Path, help="also the objects of the build for x86-64"
    )
    options = parser.parse_args()
    faults = object_faults(options.objects) if options.objects else []
    for path in options.files:
        check = wheel_faults if path.suffix == ".whl" else sdist_faults
        found = check(path)
        print(f"{path.name}: {path.stat().st_size:,} bytes, {len(found) or 'no'} faults")
        faults += [f"{path.name}: {fault}" for fault in found]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
