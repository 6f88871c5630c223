"""What ideas for the page kernels would cost, read from what the pinned compilers make of them.

    python tools/gpu_ideas.py                  prints a table
    python tools/gpu_ideas.py --idea NAME      one idea only; may be given several times
    python tools/gpu_ideas.py --markdown       the table as docs/performance.md has it

An idea is a patch of the sources in kernels/: pieces of text, each of which must be there exactly
once, and what stands in their place. Every patched copy is compiled as `tools/make_ptx.py` and
`tools/gpu_budget.py` do; a branch within a loop counts as taken half of the time. No GPU is needed,
and no speed is measured.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

import gpu_budget
import make_ptx

ARCHITECTURE = "sm_90"
COLUMNS = ("idea", "keys", "registers", "spilled", "LOP3", "PRMT", "jumps", "one pipe", "all")
JUMPS = ("BRX", "BRA", "BSSY", "BSYNC")
# What one pipe of each scheduler does, at half the rate at which instructions start.
ONE_PIPE = ("LOP3", "PRMT", "SHF", "LEA", "SEL", "VIMNMX", "ISETP", "IADD3", "VIADD")


@dataclass(frozen=True, slots=True)
class Patch:
    """A file of kernels/, text that is there once, and what is to stand there."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Idea:
    """A change of the kernels, and the numbers of keys that it matters to."""

    name: str
    keys: tuple[int, ...]
    patches: tuple[Patch, ...]


MASKS_FOR_ALL = Patch(
    "page_scan.cu",
    "  if constexpr (kIsWide<Keys>) {\n    scan_chosen_pages",
    "  if constexpr (false) {\n    scan_chosen_pages",
)
SHAPE_OF_24 = "{256, kTileVectors, 16, 2}"
CALL = "add_chosen(sums[k], selected[k] & kChoice, now.a, now.b, ab, now.c, now.d, cd);"
BEFORE_LOOP = "struct JumpPages {\n"
THREE = """
__device__ __forceinline__ void add_two(Vector& sum, const Vector& p, const Vector& q) {
#define MORPHOGEN_LOP3(m) \\
  asm("lop3.b32 %0, %0, %1, %2, 0x96;" : "+r"(sum.m) : "r"(p.m), "r"(q.m));
  MORPHOGEN_LOP3(x) MORPHOGEN_LOP3(y) MORPHOGEN_LOP3(z) MORPHOGEN_LOP3(w)
#undef MORPHOGEN_LOP3
}
"""
SIGNATURE = """
__device__ __forceinline__ void add_by_branches(
    Vector& sum, std::uint32_t choice, const Vector& a, const Vector& b, const Vector& ab,
    const Vector& c, const Vector& d, const Vector& cd) {
"""
SWITCH = f"""{THREE}{SIGNATURE}  switch (choice) {{
    case 0: break;
    case 1: xor_into(sum, a); break;
    case 2: xor_into(sum, b); break;
    case 3: xor_into(sum, ab); break;
    case 4: xor_into(sum, c); break;
    case 5: add_two(sum, a, c); break;
    case 6: add_two(sum, b, c); break;
    case 7: add_two(sum, ab, c); break;
    case 8: xor_into(sum, d); break;
    case 9: add_two(sum, a, d); break;
    case 10: add_two(sum, b, d); break;
    case 11: add_two(sum, ab, d); break;
    case 12: xor_into(sum, cd); break;
    case 13: add_two(sum, a, cd); break;
    case 14: add_two(sum, b, cd); break;
    default: add_two(sum, ab, cd);
  }}
}}
"""
PAIRS = f"""{SIGNATURE}  if (choice & 1) xor_into(sum, choice & 2 ? ab : a);
  else if (choice & 2) xor_into(sum, b);
  if (choice & 4) xor_into(sum, choice & 8 ? cd : c);
  else if (choice & 8) xor_into(sum, d);
}}
"""
BRANCH_CALL = Patch("chosen_sums.h", CALL, CALL.replace("add_chosen", "add_by_branches"))
IDEAS = (
    Idea("as shipped", (1, 3, 6, 12, 24), ()),
    Idea(
        "no prefetch before the first leaf",
        (6, 12, 24),
        (
            Patch(
                "page_scan.cu",
                "  prefetch_first_pages<Keys>(job, range);\n",
                "  if (false) prefetch_first_pages<Keys>(job, range);\n",
            ),
        ),
    ),
    Idea(
        "no read-once hint on loads",
        (6, 24),
        (Patch("page_stream.h", "return __ldcs(address);", "return *address;"),),
    ),
    Idea(
        "two blocks of 512 threads",
        (1, 3, 6),
        (
            Patch("page_jobs.h", "kBlockThreads = 1024;", "kBlockThreads = 512;"),
            Patch("page_scan.cu", "(kThreads<KEYS>, 1)", "(kThreads<KEYS>, KEYS <= 6 ? 2 : 1)"),
        ),
    ),
    Idea(
        "four blocks of 256 threads",
        (1, 3, 6),
        (
            Patch("page_jobs.h", "kBlockThreads = 1024;", "kBlockThreads = 256;"),
            Patch("page_scan.cu", "(kThreads<KEYS>, 1)", "(kThreads<KEYS>, KEYS <= 6 ? 4 : 1)"),
        ),
    ),
    Idea(
        "one block of 512 threads",
        (6,),
        (Patch("page_jobs.h", "kBlockThreads = 1024;", "kBlockThreads = 512;"),),
    ),
    Idea(
        "tiles of 2 KiB",
        (6,),
        (Patch("page_jobs.h", "kTileVectors = 256;", "kTileVectors = 128;"),),
    ),
    Idea(
        "tiles of 8 KiB",
        (6,),
        (Patch("page_jobs.h", "kTileVectors = 256;", "kTileVectors = 512;"),),
    ),
    Idea(
        "eight loads in flight",
        (1, 3, 6),
        (
            Patch(
                "scan_loops.h",
                "#pragma unroll 1\n  for (int step = kSteps - 1;",
                "#pragma unroll 2\n  for (int step = kSteps - 1;",
            ),
        ),
    ),
    Idea(
        "masks by shifting, not PRMT",
        (6,),
        (
            Patch(
                "scan_loops.h",
                '  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(mask) : "r"(word), '
                '"n"(0x1111 * (kCopyTopBit | Byte)));\n',
                "  mask = bit_mask(word, kCopyTopBit * Byte + 7);\n",
            ),
        ),
    ),
    Idea(
        "sums kept in registers from window to window",
        (3, 6),
        (
            Patch("page_scan.cu", "kIsWide = Keys > kMaxChunkKeys;", "kIsWide = Keys > 0;"),
            MASKS_FOR_ALL,
        ),
    ),
    Idea(
        "ChaCha's rounds unrolled",
        (1, 6, 24),
        (Patch("chacha20.h", "#pragma unroll 1  // 10 times", "#pragma unroll  // 10 times"),),
    ),
    Idea("wide kernels: masks", (12, 24), (MASKS_FOR_ALL,)),
    Idea(
        "wide kernels: a switch, as the compiler makes it",
        (12, 24),
        (Patch("chosen_sums.h", BEFORE_LOOP, SWITCH.lstrip() + "\n" + BEFORE_LOOP), BRANCH_CALL),
    ),
    Idea(
        "wide kernels: two branches, one for each pair of pages",
        (12, 24),
        (Patch("chosen_sums.h", BEFORE_LOOP, PAIRS.lstrip() + "\n" + BEFORE_LOOP), BRANCH_CALL),
    ),
    Idea(
        "wide kernels: selection words made uniform by REDUX",
        (12, 24),
        (
            Patch(
                "chosen_sums.h",
                "selected[k] = exists & __funnelshift_r(bits[k][bit / kWordBits], "
                "bits[k][bit / kWordBits + 1],\n"
                "                                             bit % kWordBits);",
                "selected[k] = __reduce_or_sync(__activemask(), exists & __funnelshift_r(\n"
                "          bits[k][bit / kWordBits], bits[k][bit / kWordBits + 1], "
                "bit % kWordBits));",
            ),
        ),
    ),
    Idea(
        "wide kernels: pages loaded when they are needed",
        (12, 24),
        (
            Patch(
                "chosen_sums.h",
                "const JumpPages next = load_pages(page, max(count, 1u), stride);",
                "",
            ),
            Patch(
                "chosen_sums.h",
                "now = next;",
                "if (count > 0) now = load_pages(page, count, stride);",
            ),
        ),
    ),
    Idea(
        "wide kernels: 24 keys in blocks of 384 threads",
        (24,),
        (Patch("page_jobs.h", SHAPE_OF_24, "{384, kTileVectors / 2, 16, 3}"),),
    ),
    Idea(
        "wide kernels: 24 keys in blocks of 512 threads",
        (24,),
        (Patch("page_jobs.h", SHAPE_OF_24, "{512, kTileVectors / 2, 16, 3}"),),
    ),
)


def apply(idea: Idea, folder: Path) -> None:
    """Patch a copy of kernels/. Raises ValueError where a text is not there exactly once."""
    for patch in idea.patches:
        path = folder / patch.file
        text = path.read_text()
        if (found := text.count(patch.old)) != 1:
            raise ValueError(f"{idea.name}: {found} times in {patch.file}, not once: {patch.old!r}")
        path.write_text(text.replace(patch.old, patch.new))


def compile_idea(idea: Idea, nvcc: str, tools: tuple[str, str]) -> dict[str, gpu_budget.Kernel]:
    """The kernels as they would be. Raises ValueError with what a compiler says against it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in make_ptx.sources():
            shutil.copy(make_ptx.KERNELS / name, folder)
        apply(idea, folder)
        ptx = folder / "idea.ptx"
        architecture = ARCHITECTURE.replace("sm", "compute")
        command = [nvcc, *make_ptx.FLAGS, f"-arch={architecture}", "-o", str(ptx), make_ptx.SOURCE]
        try:
            subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
            return gpu_budget.read_kernels(tools, ptx, ARCHITECTURE, even=True)
        except subprocess.CalledProcessError as error:
            lines = [line for line in error.stderr.splitlines() if "error" in line] or ["failed"]
            raise ValueError(lines[0].partition("error   : ")[2] or lines[0]) from None


def rows(idea: Idea, nvcc: str, tools: tuple[str, str]) -> Iterator[tuple[str, ...]]:
    """A row for each number of keys."""
    try:
        kernels = compile_idea(idea, nvcc, tools)
    except ValueError as error:
        reason = re.sub(r" \(.*\)$", "", str(error))
        yield (idea.name, ", ".join(map(str, idea.keys)), f"refused: {reason}", *[""] * 6)
        return
    for keys in idea.keys:
        kernel = kernels[f"morphogen_scan_{keys}"]
        loop = kernel.loops[0]
        loads = len(loop.load_bits)
        groups = (("LOP3",), ("PRMT",), JUMPS, ONE_PIPE)
        counts = [sum(loop.opcodes.get(name, 0) for name in group) for group in groups]
        cells = [f"{count / loads:.2f}" for count in (*counts, loop.instructions)]
        yield (idea.name, str(keys), str(kernel.registers), str(kernel.spill_bytes), *cells)


def markdown(table: list[tuple[str, ...]]) -> str:
    """The table as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in table)]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="What ideas for the page kernels would cost.")
    parser.add_argument("--idea", action="append", choices=[idea.name for idea in IDEAS])
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    nvcc, tools = make_ptx.find_tool("nvcc"), gpu_budget.find_tools()
    if nvcc is None or tools is None:
        raise SystemExit(f"needs nvcc {make_ptx.RELEASE}, {gpu_budget.NEEDED}")
    chosen = [idea for idea in IDEAS if not options.idea or idea.name in options.idea]
    errors = Console(stderr=True)
    found: list[tuple[str, ...]] = []
    for idea in track(chosen, "Compiling", console=errors, transient=True):
        found += rows(idea, nvcc, tools)
    if options.markdown:
        print(markdown(found), end="")
        return 0
    table = Table(
        caption="LOP3, PRMT, jumps, one pipe, all: instructions of the main loop, for one load"
    )
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "idea" else "right")
    for row in found:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
