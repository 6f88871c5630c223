"""Where in the source a pass spends its time: samples of `perf`, by function.

Hardware counters are often missing on virtual machines; sampling by the clock works there, too.
Everything hot is inlined, so that a sample's address is looked up in the line table, and goes to
the innermost function that is more than an instruction's wrapper.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from morphogen import instruction_set
from scan_parts import Case

HERTZ = 997  # not a multiple of anything else that ticks
SECONDS = 2.0
# Wrappers of single vector instructions: what they do is named after who calls them.
_WRAPPERS = ("simd.h", "intrin.h")
_LEAST_SHARE = 0.005
_LONGEST_NAME = 40

# Run under perf. It prints where the kernels lie in its memory.
_WORK = """
import sys, time
from pathlib import Path
from morphogen import PageMatrix, instruction_set
from morphogen.engine.cpu import CpuEngine
from morphogen.bench.workload import random_pages, random_queries
pages, page_size, queries, keys, threads = map(int, sys.argv[1:6])
table = random_pages(pages, page_size, seed=0)
batch = random_queries(pages, queries, keys, seed=5)
engine = CpuEngine(PageMatrix(table), threads=threads, instruction_set=sys.argv[6] or None)
for line in Path("/proc/self/maps").read_text().splitlines():
    if line.endswith(instruction_set.__file__):
        print(line.partition("-")[0])
        break
end = time.monotonic() + float(sys.argv[7])
while time.monotonic() < end:
    engine.answer(batch)
"""


class NoSamplesError(Exception):
    """Why nothing could be sampled."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Shares of the samples that fell into the kernels, by function and file."""

    what: str
    samples: int
    shares: dict[str, float]


def sample(case: Case, seconds: float = SECONDS) -> Samples:
    """Run a case for some seconds under `perf`.

    Raises
    ------
    NoSamplesError
        If a tool is missing, perf cannot sample here, or the kernels have no line table.
    """
    for tool in ("perf", "addr2line", "readelf"):
        if shutil.which(tool) is None:
            raise NoSamplesError(f"--functions needs {tool}, and it is not installed")
    library = str(instruction_set.__file__)
    if ".debug_line" not in _output("readelf", "-SW", library):
        raise NoSamplesError(
            f"--functions needs symbols and line numbers, and {library} has none: "
            "pip install -Cinstall.strip=false -Ccmake.define.CMAKE_CXX_FLAGS=-g ."
        )
    values = asdict(case)
    arguments = [
        *(str(values[name]) for name in ("pages", "page_size", "queries", "keys", "threads")),
        *(case.instruction_set or "", str(seconds)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder, "perf.data"))
        record = ("perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "-o", data, "--")
        base = int(_output(*record, sys.executable, "-c", _WORK, *arguments).split()[0], 16)
        script = _output("perf", "script", "-i", data, "-F", "ip,dso")
    addresses = Counter(
        int(address, 16) - base
        for address, _, module in (line.strip().partition(" ") for line in script.splitlines())
        if library in module
    )
    total = sum(addresses.values())
    if not total:
        raise NoSamplesError(f"{case.describe()}: none of perf's samples fell into the kernels")
    shares: Counter[str] = Counter()
    for name, address in zip(_functions(library, list(addresses)), addresses, strict=True):
        shares[name] += addresses[address]
    return Samples(
        case.describe(),
        total,
        {
            name: count / total
            for name, count in shares.most_common()
            if count / total >= _LEAST_SHARE
        },
    )


def _functions(library: str, addresses: list[int]) -> list[str]:
    """For each address the innermost function that is no wrapper, and its file."""
    command = ("addr2line", "-e", library, "-a", "-f", "-i", "-C")
    text = _output(*command, *(hex(address) for address in addresses))
    blocks: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("0x"):
            blocks.append([])
        else:
            blocks[-1].append(line)
    return [_innermost(block) for block in blocks]


def _innermost(block: list[str]) -> str:
    """From addr2line's pairs of lines, function and place, from the inside out."""
    frames = [
        (_short(function), Path(place.partition(":")[0]).name)
        for function, place in zip(block[::2], block[1::2], strict=True)
    ]
    for function, file in frames:
        if not file.endswith(_WRAPPERS):
            return f"{function} ({file})"
    function, file = frames[-1]
    return f"{function} ({file})"


def _short(function: str) -> str:
    """A C++ name without namespaces, result, parameters, and arguments too long to read."""
    name = function.replace("morphogen::", "").replace("(anonymous namespace)::", "")
    depth, start, template = 0, 0, len(name)
    for at, character in enumerate(name):
        if character == "<":
            template = min(template, at) if depth == 0 else template
            depth += 1
        elif character == ">":
            depth -= 1
        elif character == " " and depth == 0 and at < template:
            start = at + 1
        elif character == "(" and depth == 0:
            name = name[:at]
            break
    short = name[start:].strip()
    return short if len(short) <= _LONGEST_NAME else name[start:template]


def _output(*command: str) -> str:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise NoSamplesError(f"{command[0]} failed: {run.stderr.strip()[-500:]}")
    return run.stdout
