"""Counts of the host's work by valgrind's callgrind, which are the same on a busy machine.

valgrind hides AVX-512, so these are counts of the AVX2 kernels; the AVX-512 kernels are compiled
from the same lines. The caches are simulated. Bytes read are the bytes that a cache of 1 MiB
fetches: for an answer, its passes over the pages. callgrind_work.py is the program that callgrind
runs.
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
# Simulated caches, so that counts do not depend on the machine's: bytes, ways, bytes a line.
CACHES = ("--I1=32768,8,64", "--D1=32768,8,64", "--LL=1048576,16,64")
# All of these ask the C library for memory: numpy's arrays, C++'s `new`, Python's objects above
# 512 bytes.
ALLOCATORS = ("malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign", "memalign")

Counts = dict[str, float]


def parse_dump(text: str) -> tuple[str | None, Counts]:
    """Read the name and the counts of one region from callgrind's file of it."""
    name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.M)
    events = re.search(r"^events: (.+)$", text, re.M)
    totals = re.search(r"^totals: (.+)$", text, re.M)
    if events is None or totals is None:
        raise ValueError("not a file that callgrind wrote")
    # callgrind leaves trailing zeros out.
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
    """Run all work under callgrind once, and return the counts of one call of each."""
    with tempfile.TemporaryDirectory() as folder:
        valgrind = [find_valgrind(), "-q", "--tool=callgrind", "--instr-atstart=no"]
        valgrind += ["--cache-sim=yes", *CACHES, "--compress-strings=no", "--compress-pos=no"]
        valgrind += [f"--callgrind-out-file={folder}/callgrind.out"]
        library = str(compile_library("callgrind_region", Path(folder)))
        work = str(Path(__file__).with_name("callgrind_work.py"))
        # A fixed seed, since dictionaries of strings would else lie differently each time.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        command = [*valgrind, sys.executable, work, library, INSTRUCTION_SET]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        dumps = [parse_dump(path.read_text()) for path in Path(folder).glob("callgrind.out.*")]
    regions = {name: counts for name, counts in dumps if name is not None}
    region = regions.pop(NOTHING)  # a region itself has a small cost
    found: dict[str, Counts] = {}
    for name, counts in sorted(regions.items()):
        found[name] = {
            what: round((count - region[what]) / repeats(name)) for what, count in counts.items()
        }
        if not name.startswith("answer"):
            del found[name]["bytes read"]  # work that reads no pages stays within the cache
    return found
