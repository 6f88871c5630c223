"""Compare passes over a file larger than memory with a plain read of it, under a limit of memory.

    python tools/measure/disk_pass.py --file table.bin --limit 1024
    python tools/measure/disk_pass.py --file table.bin --limit 1024 --page-sizes 1048576 --rounds 3

Every pass and every read runs in a process of its own, in a new cgroup below that of this process,
after the system has dropped the file from memory. Each pass is compared with a read just before it,
since a disk that others share has fast and slow minutes. --no-limit leaves
the cgroup out: then the figures tell of memory as well as of the disk. The file is not changed.

It prints JSON. The exit code is 1 if a pass reached less than 90% of the speed of the plain read,
and 2 if nothing was measured: where no cgroup can be made (it takes the rights to make one, usually
root's), or the file is not at least three times the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

from morphogen.cli.signals import cleaning_up

MIB = 1 << 20
LEAST_RATIO = 0.9
LEAST_TIMES = 3  # a file's bytes against the limit
CONTROLLERS = Path("/sys/fs/cgroup")
PASS_SECONDS = 600
READ = """
import os, sys, time
buffer = bytearray(1 << 20)
file = os.open(sys.argv[1], os.O_RDONLY)
start = time.perf_counter()
while os.readv(file, [buffer]):
    pass
print(time.perf_counter() - start)
"""
PASS = """
import sys, time
import numpy as np
import morphogen as mg
path, page_size, threads, queries, keys = sys.argv[1], *map(int, sys.argv[2:])
pages = mg.PageMatrix.open(path, page_size)
rows = np.random.default_rng(1).integers(pages.num_pages, size=(queries, keys))
batch, _ = mg.make_queries(rows, pages.num_pages)
with mg.open_engine(pages, "cpu", threads=threads) as engine:
    start = time.perf_counter()
    engine.answer(batch)
    print(time.perf_counter() - start)
"""


class NotMeasuredError(Exception):
    """Nothing can be measured here, for the reason that this names."""


@dataclass(frozen=True, slots=True)
class Row:
    """A kind of pass: its speed, and the ratio to that of the plain read before it; medians."""

    page_size: int
    threads: int
    queries: int
    keys: int
    megabytes_per_second: float
    ratio: float


def memory_group() -> tuple[Path, str]:
    """Return this process's cgroup for memory, and the name of its file for the limit."""
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return CONTROLLERS / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
    path = next(line.split(":", 2)[2] for line in lines if line.startswith("0:"))
    return CONTROLLERS / path.lstrip("/"), "memory.max"


@contextmanager
def limited(limit: int) -> Iterator[Path]:
    """Make a cgroup with a limit of memory, and remove it at the end."""
    try:
        parent, name = memory_group()
        group = parent / f"disk-pass-{os.getpid()}"
        group.mkdir()
    except (OSError, StopIteration) as error:
        raise NotMeasuredError(f"No cgroup can be made here: {error}") from None
    try:
        try:
            (group / name).write_text(str(limit), encoding="ascii")
        except OSError as error:
            raise NotMeasuredError(f"The cgroup takes no limit of memory: {error}") from None
        yield group
    finally:
        for _ in range(50):  # the system needs a moment after the last process has ended
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def drop(path: Path) -> None:
    """Let the system forget what it has of the file in memory."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def enter(group: Path | None) -> None:
    """Move this process into the cgroup."""
    if group is not None:
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def seconds(program: str, path: Path, arguments: Sequence[int], group: Path | None) -> float:
    """Return the seconds that a program took over the file, as it says itself."""
    drop(path)
    command = [sys.executable, "-c", program, str(path), *map(str, arguments)]
    run = subprocess.run(
        command,
        preexec_fn=partial(enter, group),
        capture_output=True,
        text=True,
        check=False,
        timeout=PASS_SECONDS,
    )
    if run.returncode:
        raise NotMeasuredError(f"A process ended with {run.returncode}: {run.stderr[-500:]}")
    return float(run.stdout)


def measure(args: argparse.Namespace, group: Path | None) -> tuple[float, list[Row]]:
    """Return the plain read's megabytes a second, and the rows."""
    nbytes = args.file.stat().st_size
    kinds: list[tuple[int, int, int, int]] = [
        (page_size, threads, queries, keys)
        for page_size in args.page_sizes
        for threads in args.threads
        for queries, keys in args.batches
    ]
    reads: list[float] = []
    passes: dict[tuple[int, int, int, int], list[float]] = {kind: [] for kind in kinds}
    ratios: dict[tuple[int, int, int, int], list[float]] = {kind: [] for kind in kinds}
    for _ in range(args.rounds):
        for kind in kinds:
            reads.append(seconds(READ, args.file, (), group))
            passes[kind].append(seconds(PASS, args.file, kind, group))
            ratios[kind].append(reads[-1] / passes[kind][-1])
    return nbytes / median(reads) / 1e6, [
        Row(*kind, nbytes / median(passes[kind]) / 1e6, median(ratios[kind])) for kind in kinds
    ]


def batch(text: str) -> tuple[int, int]:
    """Parse queries x keys, such as 2x3."""
    queries, keys = map(int, text.split("x"))
    if not (queries >= 1 and 1 <= keys <= 3):
        raise ValueError(text)
    return queries, keys


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, required=True, help="a file of any bytes")
    parser.add_argument("--limit", type=positive, default=1024, metavar="MIB")
    parser.add_argument("--no-limit", action="store_true", help="measure without a cgroup")
    parser.add_argument("--page-sizes", type=positive, nargs="+", default=[4096, MIB])
    parser.add_argument("--threads", type=positive, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=batch, nargs="+", default=[(1, 1), (2, 3)])
    parser.add_argument("--rounds", type=positive, default=3)
    args = parser.parse_args(argv)
    if not args.file.is_file():
        parser.error(f"--file: there is no file {args.file}")
    return args


def run(args: argparse.Namespace) -> tuple[float, list[Row]]:
    """Measure in a cgroup, or without."""
    if args.no_limit:
        return measure(args, None)
    nbytes, limit = args.file.stat().st_size, args.limit * MIB
    if nbytes < LEAST_TIMES * limit:
        raise NotMeasuredError(
            f"The file must have at least {LEAST_TIMES} times the limit of {limit} bytes, "
            f"not {nbytes}"
        )
    with limited(limit) as group:
        return measure(args, group)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    args = parse(argv)
    try:
        with cleaning_up():
            read, rows = run(args)
    except (NotMeasuredError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 2
    figures = {"read_megabytes_per_second": read, "rows": [asdict(row) for row in rows]}
    print(json.dumps(figures, indent=2))
    return int(not args.no_limit and any(row.ratio < LEAST_RATIO for row in rows))


if __name__ == "__main__":
    sys.exit(main())
