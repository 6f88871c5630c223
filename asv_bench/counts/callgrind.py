"""What the host executes: counted by valgrind's callgrind, so the same on a busy machine.

valgrind hides AVX-512, so these are the AVX2 kernels; AVX-512's are compiled from the same lines.
The caches are simulated: bytes read are what one of 1 MiB has to fetch, which for an answer is its
passes over the pages. callgrind_work.py is the program that it watches.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from morphogen import instruction_set

from .callgrind_work import NOTHING, repeats
from .compiled import compile_library

INSTRUCTION_SET = "avx2"
LINE = 64
# Simulated, so that counts do not depend on the machine's: bytes, ways, bytes a line.
CACHES = ("--I1=32768,8,64", "--D1=32768,8,64", "--LL=1048576,16,64")
# All ask the C library for memory: numpy's arrays, C++'s `new`, Python's objects above 512 bytes.
ALLOCATORS = ("malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign", "memalign")

Counts = dict[str, float]


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
    return name and name[1], {
        "instructions": counted["Ir"],
        "bytes read": counted["DLmr"] * LINE,
        "allocations": allocations,
    }


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


def count_all() -> dict[str, Counts]:
    """Run all work under callgrind once. Gives the counts of one call of each."""
    with tempfile.TemporaryDirectory() as folder:
        valgrind = [find_valgrind(), "-q", "--tool=callgrind", "--instr-atstart=no"]
        valgrind += ["--cache-sim=yes", *CACHES, "--compress-strings=no", "--compress-pos=no"]
        valgrind += [f"--callgrind-out-file={folder}/callgrind.out"]
        library = str(compile_library("callgrind_region", Path(folder)))
        work = str(Path(__file__).with_name("callgrind_work.py"))
        # Without a seed, dictionaries of strings would lie differently each time.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        command = [*valgrind, sys.executable, work, library, INSTRUCTION_SET]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        dumps = [parse_dump(path.read_text()) for path in Path(folder).glob("callgrind.out.*")]
    regions = {name: counts for name, counts in dumps if name is not None}
    region = regions.pop(NOTHING)  # itself costs a little, too
    found: dict[str, Counts] = {}
    for name, counts in sorted(regions.items()):
        found[name] = {
            what: round((count - region[what]) / repeats(name)) for what, count in counts.items()
        }
        if not name.startswith("answer"):
            del found[name]["bytes read"]  # what reads no pages stays within the cache
    return found
