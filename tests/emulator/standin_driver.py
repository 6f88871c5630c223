"""A stand-in for the CUDA driver: libcuda.so.1 over host memory, and kernels run by an emulator.

The engine's real code runs on it through the real cuda.bindings, on a machine without a GPU. A
test takes the fixture and continues as on a GPU::

    def test_out_of_memory(standin):
        standin.inject("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY", call=2)
        with pytest.raises(MemoryError):
            mg.open_engine(pages, device="cuda:0")

After the test the fixture checks that it freed all objects and made no wrong call.

The stand-in lives in the test's process. It is loaded before cuda.bindings looks for a driver, so
the bindings find it by its name. Between tests it has no devices, so other tests see a driver
without a GPU. A process holds one driver: if the real one is loaded, the fixture skips. A test
that needs no driver, or settings from the first call on, runs in a process of its own::

    subprocess.run([sys.executable, ...], env=environment(directory, driver_version=12080))

Queued work waits until a thread waits for it, see native/standin_state.h; ``schedule`` changes
that.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, Unpack

import pytest

from native_build import build_library

LIBRARY = "libcuda.so.1"
SCHEDULES = ("late", "eager", "random")


class Settings(TypedDict, total=False):
    """The settings of the stand-in. Sizes are in bytes, and for each device."""

    devices: int  # 1, at most 8; with 0 cuInit finds none
    compute_capability: int  # 80
    multiprocessors: int  # 4
    compute_mode: int  # 0
    total_memory: int  # 1 GiB
    free_memory: int  # 1 GiB; before any allocation
    host_memory: int  # 1 GiB; the most that can be pinned
    driver_version: int  # 13000
    init_error: int  # 0; the result of cuInit
    registers: int  # 64; of each thread of any kernel
    schedule: Literal["late", "eager", "random"]  # when queued work runs
    seed: int  # of the random schedule, and of the order in which blocks run
    instruction_limit: int  # of a launch, in warp instructions; 0 for none
    held: bool  # no queued work is done, and threads that wait for it wait on
    null: bool  # kernels, copies, events and waits do nothing
    log: bool  # on; keep calls and launches


class Logged(NamedTuple):
    function: str
    result: int
    thread: int  # its threading.get_native_id()


class Launch(NamedTuple):
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    stream: int  # any number, another for each stream


def build(directory: Path) -> Path:
    """Build the library below a directory, unless it exists; return its folder."""
    # The loader knows the library by the name inside it.
    link = (f"-Wl,-soname,{LIBRARY}",)
    return build_library(LIBRARY, ("standin_*.cpp", "ptx_*.cpp"), directory, link=link).parent


def numbers(settings: Settings) -> dict[str, int]:
    """Return the settings as the library takes them."""
    unknown = settings.keys() - Settings.__annotations__.keys()
    if unknown:
        raise TypeError(f"no such setting: {', '.join(sorted(unknown))}")
    return {
        name: SCHEDULES.index(value) if isinstance(value, str) else int(value)  # type: ignore[call-overload]
        for name, value in settings.items()
    }


def environment(directory: Path, **settings: Unpack[Settings]) -> dict[str, str]:
    """Return the environment of a process that finds the stand-in of a directory as its driver."""
    paths = [str(directory), os.environ.get("LD_LIBRARY_PATH", "")]
    variables = {f"STANDIN_{name.upper()}": str(n) for name, n in numbers(settings).items()}
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, paths)), **variables}


def other_driver() -> str | None:
    """Return the CUDA driver that this process has loaded, if it is not the stand-in."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        path = line.split(maxsplit=5)[5:]
        if path and Path(path[0]).name.startswith("libcuda.so"):
            library = ctypes.CDLL(path[0])
            if not hasattr(library, "standin_report"):
                return path[0]
    return None


class StandIn:
    """The stand-in that this process has loaded, or loads from ``path``."""

    def __init__(self, path: str | Path = LIBRARY) -> None:
        self._library = library = ctypes.CDLL(str(path))
        if not hasattr(library, "standin_report"):
            raise RuntimeError(f"{path} is not the stand-in")
        library.standin_report.restype = ctypes.c_char_p
        library.standin_last_launch_ns.restype = ctypes.c_int64
        library.standin_set.restype = library.standin_inject.restype = ctypes.c_bool
        library.standin_set.argtypes = [ctypes.c_char_p, ctypes.c_int64]
        library.standin_set_device.restype = library.standin_lose.restype = ctypes.c_bool
        library.standin_set_device.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int64]
        library.standin_set_free_memory.argtypes = [ctypes.c_int64]
        library.standin_lose.argtypes = [ctypes.c_int, ctypes.c_int]
        library.standin_add_compiled.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int)
        ]
        library.standin_inject.argtypes = [
            *(ctypes.c_char_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_bool),
            ctypes.c_int,
        ]

    def report(self, section: str) -> Any:
        return json.loads(self._library.standin_report(section.encode()))

    def set(self, **settings: Unpack[Settings]) -> None:
        for name, number in numbers(settings).items():
            assert self._library.standin_set(name.encode(), number), name

    def set_device(self, device: int, **settings: Unpack[Settings]) -> None:
        """Set what one device has: its memory, compute capability, mode or multiprocessors."""
        for name, number in numbers(settings).items():
            if not self._library.standin_set_device(device, name.encode(), number):
                raise ValueError(f"device {device} has no {name} of its own")

    def set_free_memory(self, count: int) -> None:
        """Set the free bytes of every device, whatever is allocated on it."""
        self._library.standin_set_free_memory(count)

    def set_null(self, null: bool) -> None:
        """Make kernels, copies, events and waits do nothing, to time the caller alone."""
        self.set(null=null, log=not null)

    def inject(
        self,
        function: str,
        error: int | str,
        *,
        call: int = 1,
        sticky: bool = False,
        device_lost: bool = False,
        late: bool = False,
        device: int | None = None,
    ) -> None:
        """Make the call-th call of a function from now fail, and do nothing.

        ``sticky``: then everything in the current context fails. ``device_lost``: then everything
        on the device fails, new contexts too. ``late``: the call succeeds, and the work that it
        queued fails; such an error is always sticky, and comes out where a thread waits for the
        work. ``device``: count only calls in its context.
        """
        number = self._result(error)
        scope = 2 if device_lost else int(sticky)
        whose = -1 if device is None else device
        if not self._library.standin_inject(function.encode(), number, call, scope, late, whose):
            raise ValueError(f"{function} is no function that fails so")

    def lose(self, device: int, error: int | str = "CUDA_ERROR_DEVICE_UNAVAILABLE") -> None:
        """Fail all that is done on a device from now on, until `clear`. The others go on."""
        if not self._library.standin_lose(device, self._result(error)):
            raise ValueError(f"there is no device {device}")

    def _result(self, error: int | str) -> int:
        return int(self.report("results")[error] if isinstance(error, str) else error)

    def add_compiled(self, code: bytes, ptx: str, architecture: int) -> None:
        """Name the PTX that compiled code was made from, an ELF file for 90 (sm_90).

        The emulator runs that PTX. Tests see which code is loaded, and nothing of the code itself.
        """
        self._library.standin_add_compiled(code, len(code), ptx.encode(), architecture)

    def clear(self) -> None:
        """Forget the faults that have not struck, and restore lost devices."""
        self._library.standin_clear()

    def calls(self) -> Counter[str]:
        """Count the calls of each function."""
        return +Counter(self.report("calls"))

    def log(self) -> list[Logged]:
        return [Logged(*entry) for entry in self.report("log")]

    def launches(self) -> list[Launch]:
        return [Launch(name, tuple(g), tuple(b), s) for name, g, b, s in self.report("launches")]

    def last_launch_ns(self) -> int:
        """Return the time.monotonic_ns() of the last entry into cuLaunchKernel."""
        launched: int = self._library.standin_last_launch_ns()
        return launched

    def live(self) -> dict[str, int]:
        """Count the objects of each kind: contexts retained, allocations, bytes, streams, ...

        "current" counts the contexts on the calling thread's stack.
        """
        counts: dict[str, int] = self.report("live")
        return counts

    def used(self) -> list[int]:
        """Return the bytes that are allocated on each of the 8 devices that there may be."""
        used: list[int] = self.report("used")
        return used

    def misuse(self) -> list[str]:
        """Return calls that no correct program makes: unknown handles, bad arguments, ..."""
        found: list[str] = self.report("misuse")
        return found

    def leaks(self) -> list[str]:
        """Return the objects that were left when their context was destroyed."""
        found: list[str] = self.report("leaks")
        return found

    def failures(self) -> list[str]:
        """Return the errors of queued work."""
        found: list[str] = self.report("failures")
        return found

    def assert_clean(self) -> None:
        """Check that all objects were freed, and that no call was wrong.

        A context may stay current: if popping it failed, the program can do no better.
        """
        assert self.misuse() == []
        assert self.leaks() == []
        assert {kind: n for kind, n in self.live().items() if n > 0 and kind != "current"} == {}

    def reset_log(self) -> None:
        self._library.standin_reset_log()

    def reset(self) -> None:
        """Destroy all contexts, forget everything, and take the settings of the environment."""
        self._library.standin_reset()


@pytest.fixture(scope="session")
def standin_directory(native_folder: Path) -> Path:
    """Return the folder of the library, for processes of their own."""
    return build(native_folder)


@pytest.fixture(scope="session")
def standin_library(request: pytest.FixtureRequest) -> StandIn:
    if other_driver():
        pytest.skip(f"this process has loaded {other_driver()}")
    directory: Path = request.getfixturevalue("standin_directory")
    return StandIn(directory / LIBRARY)


@pytest.fixture
def standin(standin_library: StandIn) -> Iterator[StandIn]:
    """Provide the stand-in with one device, as after loading, and check it after the test."""
    standin_library.reset()
    yield standin_library
    gc.collect()
    try:
        standin_library.assert_clean()
    finally:
        standin_library.reset()
        standin_library.set(devices=0)
