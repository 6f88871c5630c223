"""The diagnosis of an installation: the engine it will use here, the reason, and self tests."""

from __future__ import annotations

import hashlib
import os
import platform
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import morphogen
import morphogen.dpf as dpf
import morphogen.instruction_set as instruction_set
from morphogen.engine import open_engine
from morphogen.engine.cores import usable_cores
from morphogen.engine.cpu import CpuEngine
from morphogen.engine.cuda.status import DriverStatus, driver_status
from morphogen.engine.cuda.tuning import tuning_of
from morphogen.engine.devices import ALL_GPUS
from morphogen.errors import DeviceError, DeviceOutOfMemoryError, DeviceUnavailableError
from morphogen.pages import PageMatrix
from morphogen.query import Query, make_queries, reconstruct

# The worked example of docs/protocol.md: Gen(700, 1025), and page x is x as 4 bytes.
_INDEX, _NUM_PAGES = 700, 1025
_ENTROPY = bytes(range(0x11, 0x41))
_BITS_SHA256 = (
    "b4a6bd075fd03e07f92f2df7a4b52d466a2db5a04f64397208012e36623d63bc",
    "982a77f924383af1c4dd7277a9c5dc513a646ecce264646fdc864d9aeb64c0eb",
)
_ANSWERS = ("82040000", "3e060000")


@dataclass(frozen=True, slots=True)
class Check:
    """The self test of one instruction set.

    Attributes
    ----------
    instruction_set : str
    fault : str
        The fault that was found; empty if there is none.
    """

    instruction_set: str
    fault: str


@dataclass(frozen=True, slots=True)
class GpuCheck:
    """The self test of one GPU, or of all that share a table.

    Attributes
    ----------
    device : str
        "cuda:N", or "cuda:all".
    fault : str
        The fault that was found; empty if there is none.
    refused : str
        The reason that it was not tested: no engine can be opened on it now. Empty if it was.
    """

    device: str
    fault: str
    refused: str


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """The variants of the kernels that engines on a GPU take by themselves.

    Attributes
    ----------
    device : str
        "cuda:N".
    kernels : dict of int to str
        By the most keys of a kernel its variant; empty where only default kernels run.
    reason : str
        Where that comes from, in words.
    """

    device: str
    kernels: dict[int, str]
    reason: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings.

    Attributes
    ----------
    morphogen, python, numpy, machine : str
        Versions, and the kind of machine.
    device : str
        The device that ``open_engine(pages)`` uses; "none" if it fails.
    driver : DriverStatus
        The status of CUDA, with the reason if no GPU can be used.
    compiled, supported : tuple of str
        Instruction sets in this build, and those that this machine runs; the widest first.
    instruction_set : str
        The one in use.
    read_order : str
        The order in which the CPU engine's passes read pages: "rows" or "memory".
    read_order_source : str
        What decided it: the processor's "make" or a "measurement" in this process.
    threads : int
        Threads of an engine, by default.
    threads_limit : str
        The limit that gives it, one of `morphogen.engine.cores.LIMITS`.
    cores : int
        Cores of the machine.
    max_micro_batch : int
        The most queries that share a pass on the CPU.
    ray : str
        The version of Ray, which runs clusters; empty if it is not installed.
    checks : tuple of Check
        One for each supported instruction set.
    gpu_checks : tuple of GpuCheck
        One for each GPU that can be used, and if they are several, one for all together.
    gpu_kernels : tuple of KernelChoice
        One for each GPU that can be used.
    """

    morphogen: str
    python: str
    numpy: str
    machine: str
    device: str
    driver: DriverStatus
    compiled: tuple[str, ...]
    supported: tuple[str, ...]
    instruction_set: str
    read_order: str
    read_order_source: str
    threads: int
    threads_limit: str
    cores: int
    max_micro_batch: int
    ray: str
    checks: tuple[Check, ...]
    gpu_checks: tuple[GpuCheck, ...]
    gpu_kernels: tuple[KernelChoice, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed. A GPU that is missing or full has not failed."""
        faults = [check.fault for check in self.checks]
        return not any(faults + [check.fault for check in self.gpu_checks])

    def as_dict(self) -> dict[str, Any]:
        """All of it in types that JSON has."""
        return {**asdict(self), "gpu_engine": self.driver.usable, "ok": self.ok}


def examine() -> Diagnosis:
    """Look at this installation and test it.

    Returns
    -------
    Diagnosis
    """
    pages = PageMatrix(np.zeros((1, 1), dtype=np.uint8))
    driver = driver_status()
    usable = [found.ordinal for found in driver.devices if found.usable]
    with CpuEngine(pages) as engine:
        return Diagnosis(
            morphogen=morphogen.__version__,
            python=f"{platform.python_implementation()} {platform.python_version()}",
            numpy=np.__version__,
            machine=f"{platform.system()} {platform.machine()}",
            device=_default_device(pages),
            driver=driver,
            compiled=instruction_set.compiled(),
            supported=instruction_set.supported(),
            instruction_set=engine.instruction_set,
            read_order=engine.read_order,
            read_order_source=engine.read_order_source,
            threads=engine.threads,
            threads_limit=usable_cores().limit,
            cores=os.cpu_count() or 1,
            max_micro_batch=engine.max_micro_batch,
            ray=_ray_version(),
            checks=tuple(_check(name) for name in instruction_set.supported()),
            gpu_checks=_check_gpus(usable),
            gpu_kernels=tuple(_kernel_choice(ordinal) for ordinal in usable),
        )


def _kernel_choice(ordinal: int) -> KernelChoice:
    with warnings.catch_warnings(action="ignore"):  # the reason says it, too
        tuning = tuning_of(ordinal)
    return KernelChoice(f"cuda:{ordinal}", dict(tuning.kernels), tuning.reason)


def _ray_version() -> str:
    """The installed version, without an import, which takes a second."""
    try:
        return version("ray")
    except PackageNotFoundError:
        return ""


def _default_device(pages: PageMatrix) -> str:
    try:
        with open_engine(pages) as engine:
            return engine.device
    except DeviceError:  # the check of that GPU tells the fault
        return "none"


def _check(name: str) -> Check:
    try:
        return Check(name, _known_answer_fault("cpu", name) or _fetch_fault("cpu", name))
    except Exception as error:  # a test that breaks down has failed
        return Check(name, f"{type(error).__name__}: {error}")


def _check_gpus(ordinals: list[int]) -> tuple[GpuCheck, ...]:
    checks = []
    for ordinal in ordinals:
        device = f"cuda:{ordinal}"
        checks.append(
            _check_gpu(device, lambda name: _known_answer_fault(name) or _fetch_fault(name))
        )
    if len(ordinals) > 1:
        # Each has a leaf of the table or more.
        leaves = max(3, len(ordinals))
        checks.append(_check_gpu(ALL_GPUS, lambda name: _fetch_fault(name, leaves=leaves)))
    return tuple(checks)


def _check_gpu(device: str, find_fault: Callable[[str], str]) -> GpuCheck:
    try:
        return GpuCheck(device, find_fault(device), "")
    except (DeviceOutOfMemoryError, DeviceUnavailableError) as error:
        return GpuCheck(device, "", str(error))
    except Exception as error:  # as above
        return GpuCheck(device, f"{type(error).__name__}: {error}", "")


def _known_answer_fault(device: str, name: str | None = None) -> str:
    """Compare keys, selection bits and answers with docs/protocol.md."""
    pages = PageMatrix(np.arange(_NUM_PAGES, dtype="<u4").view(np.uint8).reshape(_NUM_PAGES, 4))
    keys = dpf.gen(_INDEX, _NUM_PAGES, entropy=_ENTROPY)
    with open_engine(pages, device, instruction_set=name) as engine:
        for party, key in enumerate(keys):
            bits = dpf.eval_full(key, _NUM_PAGES, instruction_set=name)
            if hashlib.sha256(bits.tobytes()).hexdigest() != _BITS_SHA256[party]:
                return f"party {party}'s selection bits differ from the protocol's example"
            answer = engine.answer([Query([key])]).pages.tobytes().hex()
            if answer != _ANSWERS[party]:
                return f"party {party} answered {answer}, not {_ANSWERS[party]}"
    return ""


def _fetch_fault(device: str, name: str | None = None, leaves: int = 3) -> str:
    """Fetch pages privately and compare them, in every chunk width that takes another path."""
    # Sizes that are multiples of no width, so that every tail is met.
    last = dpf.PAGES_PER_LEAF * (leaves - 1) + 176
    array = np.random.default_rng(0).integers(256, size=(last + 1, 331), dtype=np.uint8)
    pages = PageMatrix(array)
    rows = np.array([[0, last, 600], [511, 512, last - 1], [1, 1, 1], [7, 1024, 1023]])
    batches = make_queries(rows, pages.num_pages)
    with open_engine(pages, device, instruction_set=name) as engine:
        for width in sorted({1, 2, engine.max_micro_batch}):
            answers = [engine.answer(batch, max_micro_batch=width) for batch in batches]
            if not np.array_equal(reconstruct(*answers), array[rows]):
                return f"a private fetch in chunks of at most {width} gave wrong pages"
    return ""
