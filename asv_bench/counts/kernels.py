"""The cost of the page kernels on a GPU, from ptxas's report on the committed PTX.

No GPU is needed. The counts are bounds on speed: whether the registers let enough threads run,
whether anything spills, and the instructions of the loop over the pages for 16 bytes.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import make_cubins
import make_ptx

from . import sass

ARCHITECTURES = ("sm_80", "sm_90")
VECTOR_BITS = 128

# One multiprocessor of any device from compute capability 8.0 to 9.0. It has four schedulers, each
# with a quarter of the registers, which it assigns in units. (8.6 and 8.9 take fewer threads.)
SCHEDULERS = 4
REGISTERS = 65536
REGISTER_UNIT = 256
WARP_THREADS = 32
MAX_WARPS = 64

Counts = dict[str, float]


@dataclass(frozen=True, slots=True)
class Tools:
    """The paths of the pinned ptxas, and of any nvdisasm."""

    ptxas: str
    nvdisasm: str

    @classmethod
    def find(cls) -> Tools:
        ptxas, nvdisasm = make_ptx.find_tool("ptxas"), make_ptx.installed("nvdisasm")
        if ptxas is None or not nvdisasm:
            raise NotImplementedError(f"needs ptxas {make_ptx.RELEASE} and nvdisasm")
        return cls(ptxas, nvdisasm[0])


def count_all() -> dict[str, Counts]:
    """Count each kernel, by architecture and name."""
    tools = Tools.find()
    return {
        f"{architecture} {name}": counts
        for ptx, architecture in make_cubins.cubins().values()
        if architecture in ARCHITECTURES
        for name, counts in sorted(
            count_kernels(tools, make_ptx.COMMITTED / ptx, architecture).items()
        )
    }


def count_kernels(tools: Tools, ptx: Path, architecture: str) -> dict[str, Counts]:
    """Count each kernel in a file of PTX."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = str(Path(folder, "kernels.cubin"))
        command = [tools.ptxas, "--verbose", f"--gpu-name={architecture}", "-o", cubin, str(ptx)]
        log = subprocess.run(command, capture_output=True, text=True, check=True)
        code = subprocess.run(
            [tools.nvdisasm, "--print-code", cubin], capture_output=True, text=True, check=True
        )
    resources = count_resources(log.stderr, ptx.read_text())
    return {
        name: resources[name] | count_code(name, lines)
        for name, lines in sass.parse_kernels(code.stdout).items()
    }


def count_resources(log: str, ptx: str) -> dict[str, Counts]:
    """Read the report of `ptxas --verbose` for each kernel, with the functions that it calls."""
    found: dict[str, Counts] = {}
    threads = dict(re.findall(r"\.entry (\w+)\([^{]*?\.maxntid (\d+)", ptx))
    for part in re.split(r"Compiling entry function '", log)[1:]:
        name = part.split("'")[0]

        def total(pattern: str, part: str = part) -> int:
            return sum(map(int, re.findall(pattern, part)))

        registers = total(r"Used (\d+) registers")
        found[name] = {
            "registers": registers,
            "threads a multiprocessor": threads_that_fit(registers, int(threads[name])),
            "shared bytes": total(r"(\d+) bytes smem"),
            "spilled and stack bytes": total(r"(\d+) bytes (?:spill|stack frame)"),
        }
    return found


def threads_that_fit(registers: int, block_threads: int) -> int:
    """Return the number of threads whose registers fit a multiprocessor, in whole blocks."""
    of_a_warp = -(-registers * WARP_THREADS // REGISTER_UNIT) * REGISTER_UNIT
    warps = min(MAX_WARPS, SCHEDULERS * (REGISTERS // SCHEDULERS // of_a_warp))
    return warps * WARP_THREADS // block_threads * block_threads


def count_code(name: str, lines: list[str]) -> Counts:
    """Count what only a kernel's disassembly shows."""
    blocks = sass.parse_blocks(lines)
    everything = [i for block in blocks for i in block.instructions]
    counts: Counts = {"local accesses": sum(i.opcode in ("LDL", "STL") for i in everything)}

    copies = name.endswith("_tma")

    # A kernel that copies its pages to shared memory loads them from there, 16 bytes at a time.
    def loads_of(loop: sass.Loop) -> list[sass.Instruction]:
        if not copies:
            return loop.loads()
        return [i for i in loop if i.opcode == "LDS" and i.bits == VECTOR_BITS]

    loops = [loop for loop in sass.find_loops(blocks) if loads_of(loop)]
    if not loops:
        return counts

    # Some kernels' pages go to the tensor cores, and only those.
    loops = [loop for loop in loops if "BMMA" in loop.opcodes()] or loops

    # Nearly all pages go through the loop with the most loads. Of two such loops take the one
    # without conditions, and of two such the inner one.
    # Of loops that load from shared memory, others add sums up: theirs are shorter.
    def importance(loop: sass.Loop) -> tuple[int, int, int]:
        if copies:
            return len(loop), 0, loop.depth
        conditional = sum(i.conditional for i in loads_of(loop))
        return len(loads_of(loop)), -conditional, loop.depth

    main = max(loops, key=importance)
    counts["instructions a load"] = round(main.length() / len(loads_of(main)), 2)
    if name.startswith("morphogen_bits_"):
        counts["BMMA a load"] = round(main.opcodes().get("BMMA", 0) / len(main.loads()), 2)
    scan = re.fullmatch(r"morphogen_scan_(\d+)(?:_\w+)?", name)
    if scan:
        # A scan loads nothing but pages, in its loops or in code unrolled after them.
        loads = [i for i in everything if i.opcode in sass.GLOBAL_LOADS]
        counts["loads narrower than 16 bytes"] = sum(i.bits != VECTOR_BITS for i in loads)
        vectors = sum(i.bits for i in loads_of(main)) / VECTOR_BITS * int(scan[1])
        counts["LOP3 for 16 bytes and a key"] = round(main.opcodes().get("LOP3", 0) / vectors, 3)
    return counts
