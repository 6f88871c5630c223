"""The stages of tools/gpu/check.py: what each runs, and in how many seconds by prediction."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import requirements

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 480  # seconds of a stage
ABSENT = 77  # the status of a stage whose tool is missing
PAGE_SIZE = 4096

# What ncu counts of a launch.
METRICS = (
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "lts__t_sectors_op_red.sum",
    "lts__t_sectors_op_atom.sum",
    "launch__registers_per_thread",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
)

# What nvidia-smi tells of a GPU and of its clocks.
SMI_NAMES = (
    "name,driver_version,vbios_version,memory.total,memory.used,temperature.gpu,pstate,clocks.sm,"
    "clocks.max.sm,clocks.mem,clocks.max.mem,power.draw,power.limit,ecc.mode.current,"
    "mig.mode.current,compute_mode"
)

# Says which GPU is used, such as nvidia-h100-80gb-hbm3, or why none is.
DESCRIBE = """import re, sys, morphogen
status = morphogen.driver_status()
if not status.usable: sys.exit(f"no GPU can be used: {status.reason}")
device = next(device for device in status.devices if device.usable)
print(re.sub("[^a-z0-9]+", "-", device.name.lower()).strip("-"))"""


class StageError(Exception):
    """A stage cannot go on; the message says why."""


class AbsentError(StageError):
    """What a stage needs is not on this machine."""


@dataclass(frozen=True, slots=True)
class Host:
    """The machine, and where things lie on it.

    Attributes
    ----------
    wheels : Path or None
        The folder that wheels.sh filled.
    venv : Path
        The environment of all stages but the first, which makes it.
    results : Path
        Results lie below it as they do below the repository.
    started : str
        The date and time in the results' names.
    commit : str
        What is measured.
    """

    wheels: Path | None
    venv: Path
    results: Path
    started: str
    commit: str

    @property
    def python(self) -> Path:
        """The interpreter of the environment."""
        return self.venv / "bin" / "python"

    def gpu(self) -> str:
        """Name the GPU as files and asv do, or fail with the reason that there is none."""
        if not self.python.exists():
            raise StageError(f"there is no environment in {self.venv}: --stage build makes it")
        command: list[str | Path] = [self.python, "-c", DESCRIBE]
        found = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        if found.returncode:
            raise StageError(found.stderr.strip())
        return found.stdout.strip()

    def file(self, ending: str) -> Path:
        """Name a result, of the GPU that is used."""
        folder = self.results / "docs" / "benchmarks"
        path = folder / f"{self.started}-{self.gpu()}{ending}"
        folder.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the check that stands alone.

    Attributes
    ----------
    name : str
    predicted : int
        Seconds that it takes at most on an H100, as docs/benchmarks.md works out.
    run : callable
        Does it, and returns 0 or an exit status.
    """

    name: str
    predicted: int
    run: Callable[[Host], int]


def call(*command: str | Path, folder: Path = ROOT) -> int:
    """Run a command, whose output is the stage's."""
    sys.stdout.flush()
    return subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, check=False).returncode


def find_tool(name: str) -> str:
    """Find a program of CUDA's toolkit, or say that the stage's tool is absent."""
    folders = [*os.get_exec_path(), f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin"]
    nsight = Path("/opt/nvidia/nsight-compute")
    folders += sorted(map(str, nsight.glob("*")), reverse=True)
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise AbsentError(f"{name} is not here")
    return found


def find_commit(wheels: Path | None) -> str:
    """Say which commit is measured: a copy of the files without git's history has it in WHEELS."""
    said = wheels / "COMMIT" if wheels else None
    if said is not None and said.is_file():
        return said.read_text(encoding="utf-8").strip()
    if not (ROOT / ".git").exists():
        return ""  # not that of a repository in which the copy lies
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return found.stdout.strip()


# The environment


def build(host: Host) -> int:
    """Make the environment, install a finished wheel in it, or build one where it does not load."""
    make_environment(host)
    pip: list[str | Path] = [host.python, "-m", "pip", "--disable-pip-version-check", "install"]
    pip += ["--no-index", "--quiet"]
    if host.wheels:
        pip += ["--find-links", host.wheels]
    install(pip, requirements.to_run())
    pip += ["--no-deps"]
    finished = sorted(host.wheels.glob("morphogen-*.whl")) if host.wheels else []
    # The Python beneath may have another morphogen: that one loads is not enough.
    installed = [call(*pip, "--force-reinstall", wheel) == 0 for wheel in finished]
    if any(installed) and loads(host):
        return 0
    print("no finished wheel loads here: building from source", flush=True)
    if host.wheels:
        # All of them here: the Cython of the Python beneath would see that Python's bindings, which
        # may not match the headers here.
        install([*pip, "--ignore-installed"], requirements.to_build())
    pip.remove("--quiet")
    status = call(*pip, "--no-build-isolation", "--force-reinstall", ".")
    return status or int(not loads(host))


def install(pip: Sequence[str | Path], wanted: Sequence[str]) -> None:
    """Install all, or what can be had: pip says what is missing, which the host may have."""
    if call(*pip, *wanted):
        for requirement in wanted:
            call(*pip, requirement)


def make_environment(host: Host) -> None:
    """Make an environment that has what the Python beneath has, and that one's pip."""
    beneath = os.environ.get("PYTHON", sys.executable)
    make = ("-m", "venv", "--without-pip", "--system-site-packages", host.venv)
    try:
        if call(beneath, *make):
            raise StageError(f"{beneath} makes no environment")
    except OSError as error:
        raise StageError(f"{beneath} cannot be run: {error}") from None
    # If the Python beneath belongs to an environment, this one has the packages below that alone.
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    below, here = (
        subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout
        for python in (beneath, host.python)
    )
    link = f"import site; site.addsitedir({below.strip()!r})\n"
    Path(here.strip(), "beneath.pth").write_text(link, encoding="utf-8")


def loads(host: Host) -> bool:
    """Whether the environment's own morphogen can be imported, its compiled modules too."""
    code = "import morphogen, morphogen.planner; print('morphogen is', morphogen.__file__)"
    return call(host.python, "-c", code, folder=Path("/")) == 0


def facts(host: Host) -> int:
    """Write down the machine. It asks for no serial numbers: the file is for the repository."""
    path = host.file(".txt")
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{host.started} UTC\ncommit {host.commit or 'unknown'}\n")
        file.flush()
        commands: list[list[str | Path]] = [[host.python, "-VV"]]
        if shutil.which("nvcc"):
            commands.append(["nvcc", "--version"])
        commands.append([host.venv / "bin" / "morphogen", "doctor"])
        smi = shutil.which("nvidia-smi")
        # By themselves, since a driver that does not know one of several names tells nothing.
        for names in (SMI_NAMES, "clocks_event_reasons.active") if smi else ():
            commands.append(["nvidia-smi", f"--query-gpu={names}", "--format=csv"])
        status = 0
        for command in commands:
            status |= subprocess.run(command, stdout=file, check=False).returncode
    print(path.read_text(encoding="utf-8"), end="", flush=True)
    if smi is None:
        raise AbsentError("nvidia-smi is not here")
    return status


# The benchmarks


def setting(name: str, default: str) -> str:
    """A setting that makes the work less, for a try."""
    return os.environ.get(f"GPU_CHECK_{name}") or default


def bench(host: Host, name: str, pages: str, *more: str) -> int:
    """Measure a table; each row is written when it is measured, so that a break leaves its rows."""
    file = host.file(f"-{name}")
    command: list[str | Path] = [host.venv / "bin" / "morphogen", "bench", "--device", "cuda"]
    command += ["--pages", pages, "--page-size", str(PAGE_SIZE)]
    command += ["--batch-sizes", setting("BATCHES", "1,2,4,8,16,32")]
    command += ["--iterations", setting("ITERATIONS", "21")]
    command += ["--csv", f"{file}.csv", "--json", *more]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if ended.stdout:
        Path(f"{file}.json").write_bytes(ended.stdout)
        print(f"written: {file}.csv and {file}.json")
    return ended.returncode


def ways(callers: str) -> tuple[str, ...]:
    """Options for all ways to run a batch, and so many callers at a time."""
    return "--strategies", "all", "--concurrency", setting("CALLERS", callers)


def bench256(host: Host) -> int:
    """A table of 256 MiB."""
    return bench(host, "65536", setting("PAGES", "65536"), *ways("2,8,64"), "--phases")


def benchbits(host: Host) -> int:
    """The same table, held for tensor cores too, in chunks of up to 32 queries."""
    return bench(host, "bits", setting("PAGES", "65536"), *ways("2"), "--layout", "bits")


def benchmax(host: Host) -> int:
    """As many pages as fit. Rounds of 64 callers would take longer than all the rest."""
    return bench(host, "max", setting("MAX_PAGES", "max"), *ways("2,8"))


def variants(host: Host) -> int:
    """The variants of the kernels, of which the device decides the best."""
    return bench(host, "variants", setting("PAGES", "65536"), "--variants", "all")


def asv(host: Host) -> int:
    """The results for asv."""
    gpu = host.gpu()
    if call(host.python, "-c", "import asv"):
        raise AbsentError("asv is not here")
    results = host.results / "asv_bench" / "results"
    options = ("--results", results, "--machine", gpu, "--commit", host.commit[:40] or "HEAD")
    return call(host.python, "asv_bench/gpu_results.py", *options)


# The tests


def gpu_tests(host: Host, files: Sequence[str]) -> int:
    host.gpu()
    # The host's Python may have plugins that end a session, such as by a warning.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = "-q -m gpu --slow -n0 -p no:cacheprovider -p xdist.plugin -p _hypothesis_pytestplugin"
    return call(host.python, "-m", "pytest", *options.split(), *files)


def parity(host: Host) -> int:
    """Answers against the CPU engine's."""
    return gpu_tests(host, ["tests/gpu/test_gpu_parity.py"])


def tests(host: Host) -> int:
    """The files that have the mark: to collect all others takes most of a minute."""
    marked = [
        str(path)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.gpu" in path.read_text(encoding="utf-8")
    ]
    return gpu_tests(host, [path for path in marked if Path(path).name != "test_gpu_parity.py"])


# The tools of CUDA


# The bindings ask the driver for functions that it may not have, which is no error; and the engine
# checks every call itself.
MEMCHECK = ("--leak-check", "full", "--report-api-errors", "no")


def sanitize(host: Host, *, tool: str, options: Sequence[str] = ()) -> int:
    """Run a small case under a tool of compute-sanitizer."""
    sanitizer = find_tool("compute-sanitizer")
    host.gpu()
    case = [str(host.python), "tools/gpu/small_case.py", "--seconds", setting("CASE_SECONDS", "45")]
    command = [sanitizer, "--tool", tool, *options, "--error-exitcode", "1", *case]
    refused = False
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():  # printed at once, since the stage may be ended
            print(line, end="", flush=True)
            refused |= "Device not supported" in line
    if process.returncode and refused:
        raise AbsentError("this machine does not let the sanitizer reach the device")
    return process.returncode


def ncu(host: Host) -> int:
    """Count what a few launches of each kernel do. The clocks stay as they are."""
    profiler = find_tool("ncu")
    file = host.file("-ncu.csv")
    command: list[str | Path] = [profiler, "--csv", "--page", "raw", "--log-file", file]
    command += ["--clock-control", "none", "--metrics", ",".join(METRICS)]
    command += ["--kernel-name", "regex:morphogen_(read|scan|expand|bits)"]
    case: list[str | Path] = [host.python, "tools/gpu/small_case.py", "--profile"]
    status = call(*command, *case, setting("PAGES", "65536"))
    counted = file.read_text(encoding="utf-8") if file.exists() else ""
    print(counted, flush=True)
    if "ERR_NVGPUCTRPERM" in counted or "Failed to initialize the profiler" in counted:
        file.unlink()  # it is no result
        raise AbsentError("this machine does not let the profiler read the counters")
    return status


STAGES = {
    stage.name: stage
    for stage in (
        Stage("build", 240, build),
        Stage("facts", 20, facts),
        Stage("bench256", 60, bench256),
        Stage("parity", 120, parity),
        Stage("benchmax", 285, benchmax),
        Stage("variants", 90, variants),
        Stage("benchbits", 60, benchbits),
        Stage("tests", 180, tests),
        Stage("memcheck", 75, partial(sanitize, tool="memcheck", options=MEMCHECK)),
        Stage("racecheck", 75, partial(sanitize, tool="racecheck")),
        Stage("initcheck", 75, partial(sanitize, tool="initcheck")),
        Stage("ncu", 60, ncu),
        Stage("asv", 120, asv),
    )
}


def run_inside(name: str, host: Host) -> int:
    """Run one stage in this process, for its exit status."""
    try:
        return STAGES[name].run(host)
    except AbsentError as error:
        print(error)
        return ABSENT
    except StageError as error:
        print(error)
        return 1
