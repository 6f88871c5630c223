"""What `morphogen doctor` prints of GPUs, machine by machine: for docs/install.md.

    python tools/doctor_cases.py                    prints what the page shows
    python tools/doctor_cases.py --check FILE       exits with 1 where the page shows something else
    python tools/doctor_cases.py --markdown FILE    writes it between the page's markers

No GPU is needed: the doctor is the real one, and so are the bindings; the driver is the stand-in of
the tests, set up anew for each case in a process of its own. Needs a C++ compiler and extra `test`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from rich.console import Console

from marked_markdown import marked_file, write_marked

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS / "support"), str(TESTS / "emulator")]

TOOL = "doctor_cases.py"
WIDTH = 100
OLD_COMPUTE_CAPABILITY = 75


@dataclass(frozen=True, slots=True)
class Case:
    """A machine. Settings are those of the stand-in; without, there is no driver."""

    name: str
    title: str
    settings: dict[str, Any] | None = field(default_factory=dict)
    advice: str = ""


H100 = {"compute_capability": 90, "multiprocessors": 132, "total_memory": 80 << 30}
H100["free_memory"] = H100["total_memory"]
CASES = (
    Case(
        "no-bindings",
        "The bindings are not installed",
        None,
        "Install the extra `cuda`. Nobody needs it who has no GPU: everything runs on the CPU.",
    ),
    Case(
        "no-driver",
        "There is no driver",
        None,
        "In a container, `libcuda.so.1` comes from the host: start it with the NVIDIA container "
        "runtime (`--gpus all`), and with the driver capability `compute`.",
    ),
    Case(
        "old-driver",
        "The driver is too old",
        {**H100, "driver_version": 12080},
        "See [which driver](#which-driver). `nvidia-smi` shows the same version at the top right.",
    ),
    Case(
        "no-device",
        "The driver shows no device",
        {"devices": 0},
        "An empty `CUDA_VISIBLE_DEVICES` does this, too.",
    ),
    Case(
        "mismatch",
        "The driver was updated, and its old part still runs",
        {**H100, "init_error": 803},
        "Reload the kernel module, or restart the machine.",
    ),
    Case(
        "old-device",
        "The device is too old",
        {**H100, "compute_capability": OLD_COMPUTE_CAPABILITY},
        "Compute capability 8.0 is the A100's; GPUs of its generation and later have that or more.",
    ),
    Case("usable", "A GPU that is used", H100, "This build has PTX only."),
    Case(
        "compiled",
        "The same, with code that the build compiled for it",
        H100,
        "See [the first load](#the-first-load).",
    ),
    Case(
        "full",
        "The GPU is full",
        {**H100, "free_memory": 60 << 10},
        'Somebody else has its memory. With `device="auto"` such a table is served by the CPU; '
        '`device="cuda"` raises `DeviceOutOfMemoryError`.',
    ),
    Case(
        "no-compiler",
        "The driver's compiler is missing",
        H100,
        "Containers that get only parts of the driver lack `libnvidia-ptxjitcompiler.so.1`. "
        "Where the build compiled code for the device, that is loaded and nothing is missing.",
    ),
    Case(
        "broken",
        "The device fails",
        H100,
        "The exit code is 1 here, and only here: what is tested has failed.",
    ),
)


class NoBindings(MetaPathFinder):
    """Finds that there is no package `cuda`, whatever this environment has."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name.partition(".")[0] == "cuda":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def shown_here(name: str) -> str:
    """What the doctor says of GPUs in this process, of which a case has made the environment."""
    if name == "no-bindings":
        sys.meta_path.insert(0, NoBindings())

    from standin_driver import StandIn

    import morphogen.cli.doctor as doctor
    import morphogen.cli.show as tables
    import morphogen.engine.cuda.ptx as ptx

    with tempfile.TemporaryDirectory() as temporary:
        # Whether this build has compiled code must not matter.
        ptx.MANIFEST, manifest = "hidden", ptx.MANIFEST
        if name == "compiled":
            from compiled_code import install

            ptx.MANIFEST, ptx.FOLDER = manifest, Path(temporary, "ptx")
            install(StandIn(), ptx.FOLDER)
        if name == "no-compiler":
            for call in (1, 2):  # of the default device, and of the self test
                StandIn().inject(
                    "cuModuleLoadDataEx", "CUDA_ERROR_JIT_COMPILER_NOT_FOUND", call=call
                )
        if name == "broken":
            StandIn().inject("cuLaunchKernel", "CUDA_ERROR_ILLEGAL_ADDRESS", sticky=True)
        diagnosis = doctor.examine()
    # What is said of the CPU is another machine's matter: only the width of its labels remains.
    checks = (doctor.Check("baseline", ""),)
    diagnosis = dataclasses.replace(diagnosis, checks=checks)
    console = Console(markup=False, highlight=False, emoji=False, width=WIDTH)
    with console.capture() as captured:
        tables.show_diagnosis(diagnosis, console)
    return about_gpus(captured.get())


def about_gpus(printed: str) -> str:
    """The lines about GPUs, and the last one."""
    lines = printed.rstrip().splitlines()
    kept, keep = [], False
    for line in lines[:-1]:
        if not line.startswith(" "):
            keep = line.startswith(("device ", "cuda:", "self test, cuda"))
        if keep:
            kept.append(line.rstrip())
    return "\n".join([*kept, lines[-1].rstrip()])


def shown(case: Case, driver: Path, empty: Path) -> str:
    """What the doctor says of GPUs on a case's machine, in a process of its own."""
    from standin_driver import environment

    settings = case.settings or {}
    directory = empty if case.settings is None else driver
    variables = environment(directory, **settings)
    command = [sys.executable, str(Path(__file__).resolve()), "--here", case.name]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{case.name}: {result.stderr}")
    return result.stdout.rstrip()


def markdown(directory: Path) -> str:
    """The part of the page. The stand-in is built below the directory."""
    from standin_driver import LIBRARY, build

    driver = build(directory)
    with tempfile.TemporaryDirectory() as temporary:
        # Found before the real driver, if there is one, and no library.
        Path(temporary, LIBRARY).touch()
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            outputs = list(threads.map(lambda case: shown(case, driver, Path(temporary)), CASES))
    parts = []
    for case, output in zip(CASES, outputs, strict=True):
        block = (
            f"<!-- text: tests/docs/test_install_page.py compares it -->\n```text\n{output}\n```"
        )
        parts += [f"### {case.title}", block, textwrap.fill(case.advice, 120)]
    return "\n\n".join(filter(None, parts))


def main() -> int:
    parser = argparse.ArgumentParser(description="What the doctor prints, machine by machine.")
    parser.add_argument("--check", type=marked_file(TOOL), metavar="FILE", help="compare only")
    parser.add_argument("--markdown", type=marked_file(TOOL), metavar="FILE", help="written to it")
    parser.add_argument("--here", choices=[case.name for case in CASES], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(shown_here(options.here))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        with Console(stderr=True).status("Building the stand-in driver, and asking the doctor"):
            text = markdown(Path(temporary))
        if options.check:
            written = Path(temporary, "page.md")
            written.write_text(options.check.read_text(encoding="utf-8"), encoding="utf-8")
            write_marked(written, TOOL, text)
            if written.read_bytes() != options.check.read_bytes():
                print(f"{options.check} shows something else: run tools/{TOOL}", file=sys.stderr)
                return 1
        elif options.markdown:
            write_marked(options.markdown, TOOL, text)
        else:
            print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
