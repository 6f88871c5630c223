"""What the page kernels cost on a GPU, read from what ptxas makes of the PTX in kernels/ptx.

    python tools/gpu_budget.py             prints a table
    python tools/gpu_budget.py --json      prints the same, with all loops, as JSON
    python tools/gpu_budget.py --check     exits with 1 where a kernel exceeds tests/gpu_budget.json
    python tools/gpu_budget.py --record    writes the instruction counts there

No GPU is needed. What is read is a bound on speed, not a measurement: whether the registers let
enough threads run, whether anything spills, what the loop over the pages executes for 16 bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).with_name("kernels")))

import make_ptx
import sass

BUDGET = Path(__file__).resolve().parent.parent / "tests" / "gpu_budget.json"
ARCHITECTURES = ("sm_80", "sm_90")
VECTOR_BITS = 128
MAX_MASK_KEYS = 6  # kernels for more jump, and have limits of their own

# One multiprocessor of any device from compute capability 8.0 to 9.0, but for the threads (8.6 and
# 8.9 take fewer): four schedulers, each with a quarter of the registers, given out in units.
SCHEDULERS = 4
REGISTERS = 65536
REGISTER_UNIT = 256
WARP_THREADS = 32
MAX_WARPS = 64


@dataclass
class ScanLoop:
    """What a loop that loads from global memory executes."""

    instructions: float  # of a turn; of a jump's cases, which are as likely, their mean
    load_bits: list[int]
    conditional_loads: int
    opcodes: dict[str, float]
    depth: int = 1  # in other loops

    @property
    def instructions_per_load(self) -> float:
        return round(self.instructions / len(self.load_bits), 2)


@dataclass
class Kernel:
    name: str
    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int
    block_threads: int
    local_accesses: int = 0
    instructions: int = 0
    loops: list[ScanLoop] = field(default_factory=list)  # those with loads, the main one first
    other_load_bits: list[int] = field(default_factory=list)  # of loads in no loop

    @property
    def keys(self) -> int | None:
        """How many keys a scan answers; None of a kernel that scans for none."""
        found = re.fullmatch(r"morphogen_scan_(\d+)", self.name)
        return int(found[1]) if found else None

    @property
    def threads_per_multiprocessor(self) -> int:
        """How many threads fit by registers, in whole blocks."""
        unit = REGISTER_UNIT
        of_a_warp = -(-self.registers * WARP_THREADS // unit) * unit
        warps = min(MAX_WARPS, SCHEDULERS * (REGISTERS // SCHEDULERS // of_a_warp))
        blocks = warps * WARP_THREADS // self.block_threads
        return blocks * self.block_threads

    @property
    def lop3_per_vector_and_key(self) -> float | None:
        """Logic instructions that the main loop executes for 16 bytes of a page and a key."""
        if self.keys is None or not self.loops:
            return None
        loop = self.loops[0]
        bits = sum(loop.load_bits) * self.keys
        return round(loop.opcodes.get("LOP3", 0) * VECTOR_BITS / bits, 3)


NEEDED = f"ptxas {make_ptx.RELEASE} and nvdisasm"


def find_tools() -> tuple[str, str] | None:
    """The ptxas that the budget was recorded with, and any nvdisasm."""
    ptxas, nvdisasm = make_ptx.find_tool("ptxas"), make_ptx.installed("nvdisasm")
    return (ptxas, nvdisasm[0]) if ptxas and nvdisasm else None


def parse_ptxas(log: str, ptx: str) -> dict[str, Kernel]:
    """The kernels that `ptxas --verbose` reports, functions that they call included."""
    kernels = {}
    threads = dict(re.findall(r"\.entry (\w+)\([^{]*?\.maxntid (\d+)", ptx))
    for part in re.split(r"Compiling entry function '", log)[1:]:
        name = part.split("'")[0]

        def total(pattern: str, part: str = part) -> int:
            return sum(map(int, re.findall(pattern, part)))

        kernels[name] = Kernel(
            name,
            registers=total(r"Used (\d+) registers"),
            spill_bytes=total(r"(\d+) bytes spill"),
            stack_bytes=total(r"(\d+) bytes stack frame"),
            shared_bytes=total(r"(\d+) bytes smem"),
            block_threads=int(threads[name]),
        )
    return kernels


def read_disassembly(kernel: Kernel, lines: list[str], *, even: bool = False) -> None:
    """Add to a kernel what only its code says. For `even` see sass.find_loops."""
    blocks = sass.parse_blocks(lines)
    everything = [i for block in blocks for i in block.instructions]
    kernel.instructions = len(everything)
    kernel.local_accesses = sum(i.opcode in ("LDL", "STL") for i in everything)
    loads = Counter(i.bits for i in everything if i.opcode in sass.GLOBAL_LOADS)
    for loop in sass.find_loops(blocks, even=even):
        if loop.loads():
            bits = [i.bits for i in loop.loads()]
            conditional = sum(i.conditional for i in loop.loads())
            kernel.loops.append(
                ScanLoop(loop.length(), bits, conditional, loop.opcodes(), loop.depth)
            )
            loads -= Counter(bits)
    kernel.other_load_bits = sorted(loads.elements())
    # Nearly all pages go through the loop with the most loads; of two, that without conditions, and
    # of two such, the inner one.
    kernel.loops.sort(key=lambda loop: (-len(loop.load_bits), loop.conditional_loads, -loop.depth))


def read_kernels(
    tools: tuple[str, str], ptx: Path, architecture: str, *, even: bool = False
) -> dict[str, Kernel]:
    """What ptxas makes of PTX for an architecture, and what nvdisasm shows of it.

    For `even` see sass.find_loops.
    """
    ptxas, nvdisasm = tools
    with tempfile.TemporaryDirectory() as folder:
        cubin = str(Path(folder, "kernels.cubin"))
        command = [ptxas, "--verbose", f"--gpu-name={architecture}", f"--output-file={cubin}"]
        log = subprocess.run([*command, str(ptx)], capture_output=True, text=True, check=True)
        code = subprocess.run(
            [nvdisasm, "--print-code", cubin], capture_output=True, text=True, check=True
        )
    kernels = parse_ptxas(log.stderr, ptx.read_text())
    for name, lines in sass.parse_kernels(code.stdout).items():
        read_disassembly(kernels[name], lines, even=even)
    return dict(sorted(kernels.items(), key=lambda item: (item[1].keys or 0, item[0])))


def excesses(kernel: Kernel, limits: dict[str, Any], recorded: dict[str, float]) -> list[str]:
    """Where a kernel exceeds its budget; `recorded` has its instructions for a load."""
    found = []
    if kernel.keys is not None and kernel.keys > MAX_MASK_KEYS:
        limits = {**limits, **limits["wide"]}

    def limit(what: str, value: float, most: float) -> None:
        if value > most:
            found.append(f"{kernel.name}: {value} {what}, {round(most, 2)} allowed")

    limit("bytes spilled", kernel.spill_bytes, 0)
    limit("bytes of stack", kernel.stack_bytes, 0)
    limit("local memory accesses", kernel.local_accesses, 0)
    limit("bytes of shared memory", kernel.shared_bytes, limits["shared_bytes"])
    threads, least = kernel.threads_per_multiprocessor, limits["threads_per_multiprocessor"]
    if threads < least:
        found.append(f"{kernel.name}: {threads} threads fit a multiprocessor, {least} needed")
    for loop in kernel.loops:
        narrow = sorted({bits for bits in loop.load_bits if bits != VECTOR_BITS})
        if narrow:
            found.append(f"{kernel.name}: a loop with loads of {narrow} bits")
    if kernel.keys is not None:
        if not kernel.loops:
            found.append(f"{kernel.name}: no loop that loads pages")
        # What scans loads nothing but pages, wherever it does: what follows an unrolled loop, too.
        narrow = sorted({bits for bits in kernel.other_load_bits if bits != VECTOR_BITS})
        if narrow:
            found.append(f"{kernel.name}: loads of {narrow} bits outside of loops")
    if kernel.lop3_per_vector_and_key is not None:
        most = limits["lop3_per_vector_and_key"]
        limit("LOP3 per 16 bytes and key", kernel.lop3_per_vector_and_key, most)
    if kernel.loops:
        if kernel.name not in recorded:
            found.append(f"{kernel.name}: not in the budget, run tools/gpu_budget.py --record")
        else:
            most = recorded[kernel.name] * (1 + limits["instruction_margin"])
            limit("instructions for a load", kernel.loops[0].instructions_per_load, most)
    return found


def all_excesses(budget: dict[str, Any], report: dict[str, dict[str, Kernel]]) -> list[str]:
    found = []
    for architecture, kernels in report.items():
        recorded = budget["instructions_per_load"].get(architecture, {})
        for kernel in kernels.values():
            found += [f"{architecture} {e}" for e in excesses(kernel, budget["limits"], recorded)]
        found += [f"{architecture} {name}: is no more" for name in recorded if name not in kernels]
    return found


def record(budget: dict[str, Any], report: dict[str, dict[str, Kernel]]) -> None:
    recorded = budget["instructions_per_load"] = {}
    for architecture, kernels in report.items():
        looping = [kernel for kernel in kernels.values() if kernel.loops]
        recorded[architecture] = {k.name: k.loops[0].instructions_per_load for k in looping}
    BUDGET.write_text(json.dumps(budget, indent=2) + "\n")


def tables(report: dict[str, dict[str, Kernel]]) -> list[Table]:
    """One table an architecture."""
    made = []
    for architecture, kernels in report.items():
        table = Table(title=architecture)
        table.add_column("kernel", no_wrap=True)
        names = ["registers", "threads an SM", "shared bytes", "spills, stack, local"]
        names += ["instructions", "loads in loop", "LOP3", "PRMT", "others", "LOP3 a key"]
        for name in names:
            table.add_column(name, justify="right")
        for kernel in kernels.values():
            row = [kernel.registers, kernel.threads_per_multiprocessor, kernel.shared_bytes]
            row.append(kernel.spill_bytes + kernel.stack_bytes + kernel.local_accesses)
            cells = [str(cell) for cell in [*row, kernel.instructions]]
            if kernel.loops:
                loop = kernel.loops[0]
                loads = len(loop.load_bits)
                widths = Counter(loop.load_bits).items()
                cells.append(" + ".join(f"{count} x {bits // 8} B" for bits, count in widths))
                counted = [loop.opcodes.get(opcode, 0) for opcode in ("LOP3", "PRMT")]
                counted.append(loop.instructions - sum(counted))
                cells += [f"{count / loads:.2f}" for count in counted]
            if kernel.lop3_per_vector_and_key is not None:
                cells.append(f"{kernel.lop3_per_vector_and_key:.2f}")
            table.add_row(kernel.name, *cells)
        table.caption = "LOP3, PRMT, others: instructions of the main loop, for one load"
        made.append(table)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description="What the page kernels cost on a GPU.")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help="print all that is known, as JSON")
    group.add_argument("--check", action="store_true", help="compare with the committed budget")
    group.add_argument("--record", action="store_true", help="write the instruction counts there")
    options = parser.parse_args()
    tools = find_tools()
    if tools is None:
        raise SystemExit(f"needs {NEEDED}: pip install '.[kernels]'")
    report = {}
    for architecture in ARCHITECTURES:
        report[architecture] = read_kernels(tools, make_ptx.COMMITTED / make_ptx.PTX, architecture)
    budget = json.loads(BUDGET.read_text())
    if options.json:
        plain = {a: {k.name: asdict(k) for k in kernels.values()} for a, kernels in report.items()}
        print(json.dumps(plain, indent=2))
        return 0
    if options.record:
        record(budget, report)
        return 0
    console = Console(width=None if sys.stdout.isatty() else 140)
    for table in tables(report):
        console.print(table)
    if not options.check:
        return 0
    found = all_excesses(budget, report)
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
