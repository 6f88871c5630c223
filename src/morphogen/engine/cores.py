"""The cores that this process may use: the threads of a CPU engine, by default."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# The words of each limit, for people.
LIMITS = {
    "affinity": "one for each core this process may use",
    "quota": "the CPU quota of this process's cgroup",
    "process_cpu_count": "PYTHON_CPU_COUNT or -X cpu_count of Python",
}


@dataclass(frozen=True, slots=True)
class UsableCores:
    """A number of cores.

    Attributes
    ----------
    count : int
        1 or more.
    limit : str
        The limit that gives it, the lowest of `LIMITS`.
    """

    count: int
    limit: str


def usable_cores(root: Path = Path("/")) -> UsableCores:
    """Count the cores that this process may use.

    Parameters
    ----------
    root : path, optional
        The folder that holds ``proc``, and the file systems that it names.

    Returns
    -------
    UsableCores
        The lowest of the process's affinity, the CPU quota of its cgroup, and the number that
        Python was told.
    """
    counts = {
        "affinity": _affinity(),
        "quota": _quota(root),
        "process_cpu_count": _told(),
    }
    found = {limit: count for limit, count in counts.items() if count is not None}
    limit = min(found, key=found.__getitem__)
    return UsableCores(found[limit], limit)


def _affinity() -> int:
    # The machine may have more cores than this process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _told() -> int | None:
    if hasattr(os, "process_cpu_count"):
        told: int | None = os.process_cpu_count()
        return told
    value = os.environ.get("PYTHON_CPU_COUNT", "")  # before Python 3.13 it is only ours to heed
    return int(value) if re.fullmatch("0*[1-9][0-9]{0,8}", value, re.ASCII) else None


def _quota(root: Path) -> int | None:
    # A thread for a part of a core would be stopped in every period, and a pass waits for all.
    quotas = [max(1, int(quota)) for quota in _quotas(root)]
    return min(quotas, default=None)


def _quotas(root: Path) -> Iterator[float]:
    """Find the quotas, in cores, of this process's cgroups and of all that they lie in."""
    # Version 1 has a path for each controller, version 2 one path, without a name.
    paths = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    for line in _lines(root / "proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup2":
            path, read = paths.get("", "/"), _quota_of_version_2
        elif kind == "cgroup" and "cpu" in options.split(","):
            path, read = paths.get("cpu", "/"), _quota_of_version_1
        else:
            continue
        top, point = (_unescaped(field) for field in fields.split(" ")[3:5])
        folder = root / point.lstrip("/")
        parts = PurePosixPath(path).parts
        known = len(PurePosixPath(top).parts)
        # A container may see no more of the tree than its own cgroup, under another path.
        seen = parts[:known] == PurePosixPath(top).parts and ".." not in parts
        below = parts[known:] if seen else ()
        for depth in range(len(below) + 1):
            try:
                quota = read(folder.joinpath(*below[:depth]))
            except (OSError, ValueError):  # the root has no quota
                continue
            if quota > 0:
                yield quota


def _quota_of_version_2(folder: Path) -> float:
    quota, period = (folder / "cpu.max").read_text().split()
    return 0.0 if quota == "max" else int(quota) / int(period)


def _quota_of_version_1(folder: Path) -> float:
    quota, period = (
        int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period")
    )
    return quota / period  # the quota is -1 if there is none


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")[:-1]
    except OSError:
        return []


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
