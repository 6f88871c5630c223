"""What compiling the PTX at load costs, and what PTX for older drivers would.

    python tools/ptx_cost.py                   prints tables
    python tools/ptx_cost.py --json            prints the same as JSON
    python tools/ptx_cost.py --ptxas PATH ...  with ptxas of older releases of CUDA, too
    python tools/ptx_cost.py --nvrtc PATH ...  and the PTX of an older compiler, libnvrtc.so.12
    python tools/ptx_cost.py --markdown FILE   writes the tables between the file's markers

No GPU is needed, and none is measured: ptxas stands for the compiler that is in the driver. Older
releases come from PyPI, each into a folder of its own; such a folder holds ptxas, or libnvrtc::

    pip install --no-deps --target cu12.1 nvidia-cuda-nvcc-cu12==12.1.105
    pip install --no-deps --target nvrtc12.1 nvidia-cuda-nvrtc-cu12==12.1.105

For an older ptxas the PTX in kernels/ptx is relabelled: its `.version` is made the newest that the
release reads, and below 8.3 a hint is left out, `used_bytes_mask`. NVRTC compiles
kernels/page_scan.cu anew.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import re
import resource
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

import gpu_budget
import make_ptx
from marked_markdown import marked_file, write_marked

TOOL = "ptx_cost.py"
# What each device would compile: the newest of the two files that it can run.
TARGETS = {"sm_80": "compute_80", "sm_90": "compute_90", "sm_100": "compute_90"}
SHOWN = "morphogen_scan_6"  # the kernel of a chunk of two queries of three keys
INSTRUCTION_BYTES = 16
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Code:
    """What a ptxas makes of a PTX: of the kernel for 6 keys, or of all where that is said."""

    source: str
    ptxas: str
    architecture: str
    registers: int
    lop3: float  # per 16 bytes of a page and key
    instructions_per_load: float
    spills: int  # bytes spilled and local accesses, of all kernels
    code_kib: float  # of all kernels
    excesses: int  # limits of tests/gpu_budget.json that kernels exceed


@dataclass(frozen=True, slots=True)
class Seconds:
    """Processor time that ptxas takes: the least of several runs."""

    entry: str  # or "all"
    seconds: dict[str, float]  # by architecture


class CompilerError(Exception):
    """A compiler refused its input."""


def release(tool: str) -> str:
    shown = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"release \d+\.\d+, V([\d.]+)", shown.stdout)
    if found is None:
        raise SystemExit(f"{tool} does not say its release")
    return found[1]


def newest_isa(of_release: str) -> str:
    """The newest version of PTX that a release of CUDA reads. 12.6 and 12.5 read the same."""
    major, minor = map(int, of_release.split(".")[:2])
    if major == 12:
        return f"8.{minor - 1 if minor > 5 else minor}"
    if major >= 13:
        return f"{major - 4}.{minor}"
    raise SystemExit(f"CUDA {of_release} is too old to be compared: 12.0 or newer is needed")


def relabelled(ptx: str, isa: str) -> str:
    """PTX that says it is of another version, without the one hint that is newer than 8.1."""
    text, count = re.subn(r"^\.version .+$", f".version {isa}", ptx, flags=re.M)
    assert count == 1
    if tuple(map(int, isa.split("."))) < (8, 3):
        text = re.sub(r'^\s*\.pragma "used_bytes_mask \w+";\n', "", text, flags=re.M)
    return text


def processor_seconds(command: list[str]) -> float:
    """User and system time of a command; CompilerError if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != 0:
        raise CompilerError(result.stderr.strip())
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def time_entries(ptxas: str, repeats: int = REPEATS) -> list[Seconds]:
    """How long ptxas takes for whole files, and for each kernel alone."""
    text = (make_ptx.COMMITTED / make_ptx.ptx_name("compute_80")).read_text()
    entries = ["all", *re.findall(r"\.visible \.entry (\w+)\(", text)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for entry in track(entries, "Compiling", console=Console(stderr=True)):
            seconds = {}
            for architecture, target in TARGETS.items():
                ptx = make_ptx.COMMITTED / make_ptx.ptx_name(target)
                command = [ptxas, f"--gpu-name={architecture}", f"--output-file={folder}/out"]
                command += [] if entry == "all" else [f"--entry={entry}"]
                runs = [processor_seconds([*command, str(ptx)]) for _ in range(repeats)]
                seconds[architecture] = round(min(runs), 2)
            found.append(Seconds(entry, seconds))
    return found


def examine(tools: tuple[str, str], ptx: str, source: str, architecture: str) -> Code:
    """What ptxas makes of PTX; CompilerError if it refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "page_scan.ptx")
        path.write_text(ptx)
        try:
            kernels = gpu_budget.read_kernels(tools, path, architecture)
        except subprocess.CalledProcessError as error:
            raise CompilerError(" ".join(error.stderr.replace(str(path), "PTX").split())) from None
    budget = json.loads(gpu_budget.BUDGET.read_text())
    recorded = budget["instructions_per_load"][architecture]
    shown = kernels[SHOWN]
    return Code(
        source=source,
        ptxas=release(tools[0]),
        architecture=architecture,
        registers=shown.registers,
        lop3=shown.lop3_per_vector_and_key or 0.0,
        instructions_per_load=shown.loops[0].instructions_per_load,
        spills=sum(k.spill_bytes + k.local_accesses for k in kernels.values()),
        code_kib=round(sum(k.instructions for k in kernels.values()) * INSTRUCTION_BYTES / 1024, 1),
        excesses=sum(
            len(gpu_budget.excesses(k, budget["limits"], recorded)) for k in kernels.values()
        ),
    )


# NVRTC has no headers of the C++ library. What the kernels use of it:
STANDARD = """#pragma once
typedef signed char int8_t; typedef short int16_t; typedef int int32_t; typedef long int64_t;
typedef unsigned char uint8_t; typedef unsigned short uint16_t; typedef unsigned int uint32_t;
typedef unsigned long uint64_t; typedef unsigned long uintptr_t;
namespace std {
using ::int8_t; using ::int16_t; using ::int32_t; using ::int64_t; using ::uint8_t;
using ::uint16_t; using ::uint32_t; using ::uint64_t; using ::uintptr_t; using ::size_t;
using ::memcpy; using ::memset;
}
"""


def compile_by_nvrtc(library: str, architecture: str) -> str:
    """PTX of kernels/page_scan.cu, by a libnvrtc."""
    nvrtc = ctypes.CDLL(library)
    headers = {name: (make_ptx.KERNELS / name).read_text() for name in make_ptx.sources()}
    source = headers.pop(make_ptx.SOURCE)
    headers |= dict.fromkeys(("cstdint", "cstddef", "cstring"), STANDARD)
    strings = ctypes.c_char_p * len(headers)
    program = ctypes.c_void_p()

    def text(size_of: str, get: str) -> str:
        size = ctypes.c_size_t()
        assert nvrtc[size_of](program, ctypes.byref(size)) == 0
        buffer = ctypes.create_string_buffer(size.value)
        assert nvrtc[get](program, buffer) == 0
        return buffer.value.decode()

    made = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program),
        source.encode(),
        make_ptx.SOURCE.encode(),
        len(headers),
        strings(*(header.encode() for header in headers.values())),
        strings(*(name.encode() for name in headers)),
    )
    assert made == 0, made
    options = [b"-std=c++17", b"-default-device", f"-arch={architecture}".encode()]
    arguments = (ctypes.c_char_p * len(options))(*options)
    if nvrtc.nvrtcCompileProgram(program, len(options), arguments) != 0:
        raise CompilerError(text("nvrtcGetProgramLogSize", "nvrtcGetProgramLog"))
    ptx = text("nvrtcGetPTXSize", "nvrtcGetPTX")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return ptx


def compare(
    tools: tuple[str, str], older: Iterable[str], nvrtc: Iterable[str]
) -> tuple[list[Code], list[str]]:
    """Code of the PTX as it is, and as older releases could take it; and what was refused."""
    _, nvdisasm = tools
    older = sorted(older, key=lambda path: [int(n) for n in release(path).split(".")], reverse=True)
    found, refused = [], []
    for architecture in ("sm_80", "sm_90"):
        target = TARGETS[architecture]
        committed = (make_ptx.COMMITTED / make_ptx.ptx_name(target)).read_text()
        compiled = [compile_by_nvrtc(library, target) for library in nvrtc]
        found.append(examine(tools, committed, "as it is, 9.0", architecture))
        for path in older:
            isa = newest_isa(release(path))
            sources = {f"relabelled, {isa}": relabelled(committed, isa)}
            for ptx in compiled:
                version = re.findall(r"^\.version (.+)$", ptx, re.M)[0]
                by = re.findall(r"release [\d.]+, V([\d.]+)", ptx)[0]
                if float(version) <= float(isa):
                    sources[f"NVRTC {by}, {version}"] = ptx
            for source, ptx in sources.items():
                try:
                    found.append(examine((path, nvdisasm), ptx, source, architecture))
                except CompilerError as error:
                    refused.append(f"{source}, ptxas {release(path)}, {architecture}: {error}")
    return found, refused


def rows_of(codes: list[Code]) -> list[tuple[str, ...]]:
    return [
        (
            *(code.source, code.ptxas, code.architecture, str(code.registers)),
            *(f"{code.lop3:.2f}", f"{code.instructions_per_load:.2f}", str(code.spills)),
            *(f"{code.code_kib:.0f} KiB", str(code.excesses)),
        )
        for code in codes
    ]


CODE_COLUMNS = (
    *("PTX", "ptxas", "for", "registers, 6 keys", "LOP3 per 16 bytes and key"),
    *("instructions a load", "spills, all kernels", "code, all kernels", "limits exceeded"),
)


def seconds_rows(times: list[Seconds]) -> list[tuple[str, ...]]:
    return [(t.entry, *(f"{t.seconds[name]:.2f} s" for name in TARGETS)) for t in times]


def markdown_table(columns: Iterable[str], rows: Iterable[Iterable[str]], text_columns: int) -> str:
    columns = list(columns)
    rule = ["---"] * text_columns + ["---:"] * (len(columns) - text_columns)
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *rows))


def markdown(codes: list[Code], refused: list[str], times: list[Seconds], ptxas: str) -> str:
    parts = [
        f"Processor time of ptxas {ptxas} on {platform.machine()}, the least of {REPEATS} runs; "
        "`all` is a whole file, which is what a load compiles:",
        markdown_table(("kernel", *TARGETS), seconds_rows(times), 1),
    ]
    if len(codes) > 2:
        parts += [
            "What ptxas of CUDA 12 makes of the same kernels (counted in the code, not timed on a "
            "GPU; limits are those of `tests/gpu_budget.json`):",
            markdown_table(CODE_COLUMNS, rows_of(codes), 3),
        ]
        parts += [textwrap.fill(f"Refused: {line}", 120) for line in refused]
    return "\n\n".join(parts)


# The same in the width of a terminal.
SHORT_COLUMNS = ("PTX", "ptxas", "for", "regs", "LOP3", "instr.", "spills", "code", "over")


def show(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description="What compiling the PTX costs.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--ptxas", action="append", default=[], metavar="PATH", help="of CUDA 12")
    parser.add_argument("--nvrtc", action="append", default=[], metavar="PATH", help="of CUDA 12")
    parser.add_argument("--markdown", type=marked_file(TOOL), metavar="FILE", help="written to it")
    options = parser.parse_args()
    for path in options.ptxas + options.nvrtc:
        if not Path(path).is_file():
            parser.error(f"{path} is not a file")
    tools = gpu_budget.find_tools()
    if tools is None:
        raise SystemExit(f"{gpu_budget.NEEDED} are needed: pip install '.[kernels]'")
    codes, refused = compare(tools, options.ptxas, options.nvrtc)
    times = time_entries(tools[0])
    if options.markdown:
        write_marked(options.markdown, TOOL, markdown(codes, refused, times, make_ptx.RELEASE))
    if options.json:
        data = {
            "code": [asdict(code) for code in codes],
            "refused": refused,
            "seconds": [asdict(t) for t in times],
        }
        print(json.dumps(data, indent=2))
    else:
        show(f"Compiling, ptxas {make_ptx.RELEASE}", ("kernel", *TARGETS), seconds_rows(times))
        show("Code, of 6 keys and of all", SHORT_COLUMNS, rows_of(codes))
        for line in refused:
            print(f"refused: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
