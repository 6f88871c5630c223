"""Facts of the machine and the build that figures depend on, and the load by other programs."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import morphogen
from morphogen import PageMatrix, planner
from morphogen.bench.describe import describe_size
from morphogen.engine.cpu import CpuEngine

ROOT = Path(__file__).resolve().parents[2]
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


class OtherPrograms:
    """The share of the cores' time that other programs have had since this was made."""

    def __init__(self) -> None:
        self._before = self._core_seconds()

    def share(self) -> float:
        """Return the share of all cores, from 0 to 1."""
        total, others = (
            now - then for now, then in zip(self._core_seconds(), self._before, strict=True)
        )
        return max(0.0, others / total) if total else 0.0

    @staticmethod
    def _core_seconds() -> tuple[float, float]:
        """Return all cores' seconds since the machine's start, and those of other programs."""
        with Path("/proc/stat").open(encoding="ascii") as file:
            ticks = [int(field) for field in file.readline().split()[1:9]]
        seconds = [tick / os.sysconf("SC_CLK_TCK") for tick in ticks]
        total, idle = sum(seconds), sum(seconds[3:5])
        return total, total - idle - sum(os.times()[:4])


def describe_machine(others: OtherPrograms) -> dict[str, str]:
    """Return the facts that the figures depend on, by name."""
    with closing(CpuEngine(PageMatrix(np.zeros((1, 1), dtype=np.uint8)), threads=1)) as engine:
        instruction_set, read_order = engine.instruction_set, engine.read_order
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit(),
        "processor": processor(),
        "caches": caches(),
        "cores": f"{os.cpu_count()}, of which {len(os.sched_getaffinity(0))} may be used",
        "instruction set": f"{instruction_set}, read order: {read_order}",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "morphogen": f"{morphogen.__version__}, built by {compiler()}",
        "other programs": f"{others.share():.0%} of the cores' time during the run",
    }


def commit() -> str:
    """Return the commit of the working copy, and whether files differ from it."""
    try:
        found, changes = (
            subprocess.run(
                ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
            ).stdout.strip()
            for arguments in (
                ("rev-parse", "--short=12", "HEAD"),
                ("status", "--porcelain", "--untracked-files=no"),
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found}, with changes" if changes else found


def processor() -> str:
    """Return the processor's name, family and model, since names of virtual ones say little."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    facts = dict(re.findall(r"^(model name|cpu family|model|stepping)\s*: (.*)$", text, re.M))
    if "model name" not in facts:
        return platform.machine()
    numbers = (f"{name.removeprefix('cpu ')} {facts[name]}" for name in facts if name[-1] != "e")
    return f"{facts['model name']} ({', '.join(numbers)})"


def cache_bytes(level: int) -> int:
    """Return the bytes of a core's data cache at a level, or 0 if the system does not tell."""
    for index in sorted(_CACHES.glob("index*")):
        try:
            if (index / "type").read_text().strip() == "Instruction":
                continue
            if int((index / "level").read_text()) == level:
                return int((index / "size").read_text().strip().removesuffix("K")) << 10
        except (OSError, ValueError):
            continue
    return 0


def caches() -> str:
    """Return the data caches in words, from the first level on."""
    sizes = [size for size in map(cache_bytes, (1, 2, 3)) if size]
    return ", ".join(map(describe_size, sizes)) or "unknown"


def compiler() -> str:
    """Return the name that a compiler leaves in its files, unless it was stripped."""
    code = Path(planner.__file__).read_bytes()
    found = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", code)
    return found[0].decode() if found else "an unknown compiler"
