"""Everything that only a machine with a GPU can show, in stages. It needs nothing but Python 3.11.

    tools/gpu/check.sh [WHEELS]                  all stages
    tools/gpu/check.sh --stage NAME [WHEELS]     this one; may be given several times
    tools/gpu/check.sh --within 570 [WHEELS]     those that end in so many seconds, as predicted
    tools/gpu/check.sh --list                    the stages in their order, and their seconds
    tools/gpu/check.sh --summary [RESULTS ...]   what ran and what was measured, of any runs

WHEELS is a folder that tools/gpu/wheels.sh filled, and nothing is fetched from elsewhere. Without
it, the requirements in pyproject.toml must be installed already.

A stage that fails does not stop the others, and none may take longer than 8 minutes. Exits with 0
if none failed. A stage whose tool is missing counts as absent, not as failed. The device's settings
are read, never changed.

Environment:
  OUT      a folder that gets two files, anew after each stage: gpu-check.tar.gz, which unpacked in
           the repository puts each result in its place, and gpu-check.txt, the summary. Without it
           the results go to docs/benchmarks, those of asv to asv_bench/results
  PYTHON   the interpreter to start from (python3)
  WORK     a folder for what lies between (build/gpu)
  VENV     the environment that the stage build makes and the others use (WORK/env)
  STARTED  date and time in the names of the results; by default now, in UTC: 2026-11-23-1504
  COMMIT   hash of the commit that is measured; by default what WHEELS says, or HEAD of a clone
and to try this with less work: GPU_CHECK_PAGES, GPU_CHECK_MAX_PAGES, GPU_CHECK_BATCHES,
GPU_CHECK_ITERATIONS and GPU_CHECK_CALLERS of the benchmarks, GPU_CHECK_TEST_PAGES of the tests,
GPU_CHECK_CASE_SECONDS under the sanitizer, and GPU_CHECK_SECONDS, which a stage may take (480). One
that is empty counts as not given.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import stages
import summary

ARCHIVE, TEXT = "gpu-check.tar.gz", "gpu-check.txt"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="check.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="WHEELS")
    parser.add_argument("--stage", action="append", choices=stages.STAGES, default=[])
    parser.add_argument("--within", type=float, metavar="SECONDS", default=float("inf"))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--inside", choices=stages.STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # Paths on the command line are relative to the caller's folder, defaults to the repository.
    options.paths = [path.absolute() for path in options.paths]
    if not options.summary and len(options.paths) > 1:
        parser.error(f"expected one folder of wheels, not {len(options.paths)}")
    for path in options.paths:
        if not path.exists():
            parser.error(f"no {path}: tools/gpu/wheels.sh makes a folder of wheels")
    return options


def make_host(paths: list[Path]) -> stages.Host:
    settings = os.environ
    out = settings.get("OUT")
    work = Path(settings.get("WORK") or stages.ROOT / "build" / "gpu").absolute()
    started = settings.get("STARTED") or time.strftime("%Y-%m-%d-%H%M", time.gmtime())
    os.environ["STARTED"] = started  # read the clock once: all files of a run have the same name
    return stages.Host(
        wheels=paths[0] if paths else None,
        venv=Path(settings.get("VENV") or work / "env").absolute(),
        results=work / "results" if out else stages.ROOT,
        started=started,
        commit=settings.get("COMMIT") or stages.find_commit(paths[0] if paths else None),
    )


def run_stage(stage: stages.Stage, host: stages.Host, log: Path) -> str:
    """Run a stage in a process group of its own, which ends with it, and keep what it prints."""
    command: list[str | Path] = [sys.executable, __file__, "--inside", stage.name]
    command += [host.wheels] if host.wheels else []
    print(f"\n== {stage.name}", flush=True)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    copier = threading.Thread(target=copy_output, args=(process.stdout, log), daemon=True)
    copier.start()
    try:
        status = process.wait(float(stages.setting("SECONDS", str(stages.LIMIT))))
        return {0: "ok", stages.ABSENT: "absent"}.get(status, f"failed: {status}")
    except subprocess.TimeoutExpired:
        return "failed: out of time"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        copier.join(2)  # what has left the group may hold the pipe for ever


def copy_output(source: Any, log: Path) -> None:
    """Print what a stage prints, and write it down, as long as there is somebody and room."""
    with suppress(OSError):
        log.write_bytes(b"")
    while text := source.read1(1 << 16):
        with suppress(OSError):
            sys.stdout.buffer.write(text)
            sys.stdout.flush()
        with suppress(OSError), log.open("ab") as file:
            file.write(text)


def write_out(out: Path, results: Path) -> None:
    """Write all results so far as two files, so that what comes later cannot spoil them."""
    new = out / f"{ARCHIVE}.new"
    with tarfile.open(new, "w:gz") as archive:
        for path in sorted(results.iterdir()):
            archive.add(path, path.name)
    new.replace(out / ARCHIVE)
    (out / TEXT).write_text(summary.describe([results]), encoding="utf-8")


def run(chosen: list[str], host: stages.Host, within: float) -> int:
    out = Path(os.environ["OUT"]).absolute() if os.environ.get("OUT") else None
    logs = host.results / "build" / "gpu-logs"
    try:
        for folder in (logs, *([out] if out else [])):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"check.sh: error: {error}")
        return 2
    rows: list[summary.Row] = []
    wrong = False
    begun = time.monotonic()
    for name in chosen:
        stage = stages.STAGES[name]
        before = time.monotonic()
        left = within - (before - begun)
        if stage.predicted > left:
            print(f"\n== {name}: not run, since it may take {stage.predicted} s of {left:.0f}")
            continue
        interrupt: SystemExit | None = None
        try:
            result = run_stage(stage, host, logs / f"{host.started}-{name}.txt")
        except SystemExit as error:
            result, interrupt = "failed: interrupted", error
        rows.append(summary.Row(name, result, round(time.monotonic() - before), stage.predicted))
        wrong |= result.startswith("failed")
        try:
            summary.write_rows(logs / f"{host.started}-stages.csv", rows)
            if out:
                write_out(out, host.results)
        except OSError as error:
            print(f"the results are not written: {error}", flush=True)
            wrong = True
        if interrupt:
            raise interrupt
    print("\n" + summary.table(rows), end="", flush=True)
    return int(wrong)


def end_by_signal(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> int:
    options = parse()
    if options.list:
        print(
            *(f"{stage.name:<10} {stage.predicted:>4}" for stage in stages.STAGES.values()),
            sep="\n",
        )
        return 0
    if options.summary:
        print(summary.describe(options.paths or [make_host([]).results]), end="")
        return 0
    host = make_host(options.paths)
    if options.inside:
        return stages.run_inside(options.inside, host)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_by_signal)
    return run(options.stage or list(stages.STAGES), host, options.within)


if __name__ == "__main__":
    sys.exit(main())
