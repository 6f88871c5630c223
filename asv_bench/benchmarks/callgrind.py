"""What the host executes: counted by valgrind's callgrind, so the same on a busy machine.

valgrind hides AVX-512, so these are the AVX2 kernels; AVX-512's are compiled from the same lines.
The caches are simulated: `bytes read past the cache` is what a small one has to fetch, which for an
answer is its passes over the pages. Not applicable without valgrind, its headers, or AVX2.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from morphogen import instruction_set

from .callgrind_work import ANSWERS, NOTHING, WORKS, repeats
from .compiled import compile_library

INSTRUCTION_SET = "avx2"
LINE = 64
# Simulated, so that counts do not depend on the machine's: bytes, ways, bytes a line.
CACHES = ("--I1=32768,8,64", "--D1=32768,8,64", "--LL=1048576,16,64")
# All ask the C library for memory: numpy's arrays, C++'s `new`, Python's objects above 512 bytes.
ALLOCATORS = ("malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign", "memalign")

timeout = 300


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one call: instructions, bytes that the last cache had to fetch, heap allocations."""

    instructions: float
    bytes_read: float
    allocations: float

    def less(self, other: Counts, calls: int) -> Counts:
        """A region's counts without those of the region itself, for one of its calls."""
        return Counts(
            (self.instructions - other.instructions) / calls,
            (self.bytes_read - other.bytes_read) / calls,
            (self.allocations - other.allocations) / calls,
        )


def parse_dump(text: str) -> tuple[str | None, Counts]:
    """The name and the counts of one region, from the file that callgrind wrote of it."""
    name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.M)
    events = re.search(r"^events: (.+)$", text, re.M)
    totals = re.search(r"^totals: (.+)$", text, re.M)
    if events is None or totals is None:
        raise ValueError("not a file that callgrind wrote")
    # Trailing zeros are not written.
    counted = dict.fromkeys(events[1].split(), 0)
    counted |= zip(counted, map(int, totals[1].split()), strict=False)
    allocations = sum(
        int(calls)
        for called, calls in re.findall(r"^cfn=(\S+)\n(?:cob=.*\n)?calls=(\d+)", text, re.M)
        if called.split("'")[0].split("@")[0] in ALLOCATORS
    )
    return name and name[1], Counts(counted["Ir"], counted["DLmr"] * LINE, allocations)


def find_valgrind() -> str:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise NotImplementedError("needs valgrind")
    folders = ("/usr/include", "/usr/local/include", *os.environ.get("CPATH", "").split(":"))
    if not any(Path(folder, "valgrind/callgrind.h").exists() for folder in folders):
        raise NotImplementedError("needs valgrind's headers")
    if INSTRUCTION_SET not in instruction_set.supported():
        raise NotImplementedError(f"this machine cannot run the instruction set {INSTRUCTION_SET}")
    return valgrind


def count_all(folder: Path) -> dict[str, Counts]:
    """Run all work under callgrind once. A region that is not there was not reached."""
    valgrind = [find_valgrind(), "-q", "--tool=callgrind", "--instr-atstart=no", "--cache-sim=yes"]
    output = ["--compress-strings=no", "--compress-pos=no"]
    output += [f"--callgrind-out-file={folder}/callgrind.out"]
    library = str(compile_library("callgrind_region", folder))
    program = [sys.executable, str(Path(__file__).with_name("callgrind_work.py"))]
    command = [*valgrind, *CACHES, *output, *program, library, INSTRUCTION_SET]
    # Without a seed, dictionaries of strings would lie differently each time.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    dumps = [parse_dump(path.read_text()) for path in sorted(folder.glob("callgrind.out.*"))]
    regions = {name: counts for name, counts in dumps if name is not None}
    region = regions.pop(NOTHING)
    return {name: counts.less(region, repeats(name)) for name, counts in regions.items()}


def setup_cache() -> dict[str, Counts] | str:
    # What is raised here would be a failure; raised in a benchmark's setup it says n/a.
    try:
        return count_all(Path.cwd())
    except NotImplementedError as reason:
        return str(reason)


setup_cache.timeout = timeout


class Work:
    """What is counted is written in callgrind_work.py, which asv's hash of these lines does not
    see: raise the versions where the work changes."""

    params = WORKS
    param_names = ("work",)

    def setup(self, counted: dict[str, Counts] | str, work: str) -> None:
        if isinstance(counted, str):
            raise NotImplementedError(counted)

    def track_instructions_avx2(self, counted: dict[str, Counts], work: str) -> float:
        return counted[work].instructions

    track_instructions_avx2.unit = "instructions"
    track_instructions_avx2.version = "1"

    def track_heap_allocations_avx2(self, counted: dict[str, Counts], work: str) -> float:
        return counted[work].allocations

    track_heap_allocations_avx2.unit = "allocations"
    track_heap_allocations_avx2.version = "1"


class Scan:
    params = ANSWERS
    param_names = ("queries x keys",)

    def setup(self, counted: dict[str, Counts] | str, shape: str) -> None:
        if isinstance(counted, str):
            raise NotImplementedError(counted)

    def track_bytes_read_avx2(self, counted: dict[str, Counts], shape: str) -> float:
        return counted[f"answer {shape}"].bytes_read

    track_bytes_read_avx2.unit = "bytes read past a cache of 1 MiB"
    track_bytes_read_avx2.version = "1"
