"""A stand-in for the CUDA driver: libcuda.so.1 over host memory, and kernels run by an emulator.

The engine's real code runs on it through the real cuda.bindings, on a machine without a GPU. A test
takes the fixture and goes on as on a GPU::

    def test_out_of_memory(standin):
        standin.inject("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY", call=2)
        with pytest.raises(MemoryError):
            mg.open_engine(pages, device="cuda:0")

Afterwards the fixture checks that everything was given back and every call was a correct one.

It works within the test's process: the library is loaded before cuda.bindings looks for one, which
then gets, by its name, what is there already. Between tests the stand-in has no devices, so that
tests which know nothing of it see a driver that finds no GPU. A process holds one driver: where the
real one is loaded, the fixture skips. What must see no driver, or settings that hold from the first
call on, runs in a process of its own::

    subprocess.run([sys.executable, ...], env=environment(directory, driver_version=12080))

Work waits until somebody waits for it, see native/standin_state.h; ``schedule`` changes that.
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
    """How the stand-in is set up. Sizes are in bytes, and of each device."""

    devices: int  # 1; with 0 cuInit finds none
    compute_capability: int  # 80
    multiprocessors: int  # 4
    compute_mode: int  # 0
    total_memory: int  # 1 GiB
    free_memory: int  # 1 GiB; while nothing is allocated
    host_memory: int  # 1 GiB; that can be pinned
    driver_version: int  # 13000
    init_error: int  # 0; what cuInit returns
    registers: int  # 64; of each thread of any kernel
    schedule: Literal["late", "eager", "random"]  # when queued work is done
    seed: int  # of the random schedule, and of the order in which blocks run
    instruction_limit: int  # of a launch, in warp instructions; 0: none
    null: bool  # kernels, copies, events and waits do nothing
    log: bool  # on; keep calls and launches


class Logged(NamedTuple):
    function: str
    result: int
    thread: int  # as threading.get_native_id() says it


class Launch(NamedTuple):
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]


def build(directory: Path) -> Path:
    """Build the library in a folder below a directory, unless it is there; return that folder."""
    # The name within the library is what the loader knows it by.
    link = (f"-Wl,-soname,{LIBRARY}",)
    return build_library(LIBRARY, ("standin_*.cpp", "ptx_*.cpp"), directory, link=link).parent


def numbers(settings: Settings) -> dict[str, int]:
    """The settings as the library takes them."""
    unknown = settings.keys() - Settings.__annotations__.keys()
    if unknown:
        raise TypeError(f"no such setting: {', '.join(sorted(unknown))}")
    return {
        name: SCHEDULES.index(value) if isinstance(value, str) else int(value)  # type: ignore[call-overload]
        for name, value in settings.items()
    }


def environment(directory: Path, **settings: Unpack[Settings]) -> dict[str, str]:
    """The environment of a process that is to find the stand-in of a directory as its driver."""
    paths = [str(directory), os.environ.get("LD_LIBRARY_PATH", "")]
    variables = {f"STANDIN_{name.upper()}": str(n) for name, n in numbers(settings).items()}
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, paths)), **variables}


def other_driver() -> str | None:
    """The CUDA driver that this process has loaded, if it is not the stand-in."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        path = line.split(maxsplit=5)[5:]
        if path and Path(path[0]).name.startswith("libcuda.so"):
            library = ctypes.CDLL(path[0])
            if not hasattr(library, "standin_report"):
                return path[0]
    return None


class StandIn:
    """The stand-in that is loaded in this process, or that ``path`` is to be."""

    def __init__(self, path: str | Path = LIBRARY) -> None:
        self._library = library = ctypes.CDLL(str(path))
        if not hasattr(library, "standin_report"):
            raise RuntimeError(f"{path} is not the stand-in")
        library.standin_report.restype = ctypes.c_char_p
        library.standin_last_launch_ns.restype = ctypes.c_int64
        library.standin_set.restype = library.standin_inject.restype = ctypes.c_bool
        library.standin_set.argtypes = [ctypes.c_char_p, ctypes.c_int64]
        library.standin_set_free_memory.argtypes = [ctypes.c_int64]
        library.standin_add_compiled.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int)
        ]
        library.standin_inject.argtypes = [
            *(ctypes.c_char_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_bool)
        ]

    def report(self, section: str) -> Any:
        return json.loads(self._library.standin_report(section.encode()))

    def set(self, **settings: Unpack[Settings]) -> None:
        for name, number in numbers(settings).items():
            assert self._library.standin_set(name.encode(), number), name

    def set_free_memory(self, count: int) -> None:
        """Let every device have so many bytes free now, whatever is allocated on it."""
        self._library.standin_set_free_memory(count)

    def set_null(self, null: bool) -> None:
        """Let kernels, copies, events and waits do nothing: what is left is the caller's time."""
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
    ) -> None:
        """Let the call-th call of a function from now fail, and do nothing.

        ``sticky``: then everything in the current context fails; ``device_lost``: everything on the
        device, new contexts too. ``late``: the call succeeds, and the work that it queued fails,
        which is always sticky and comes out where somebody waits for it.
        """
        number = self.report("results")[error] if isinstance(error, str) else int(error)
        scope = 2 if device_lost else int(sticky)
        if not self._library.standin_inject(function.encode(), number, call, scope, late):
            raise ValueError(f"{function} is no function that fails so")

    def add_compiled(self, code: bytes, ptx: str, architecture: int) -> None:
        """Say what compiled code, an ELF file for 90 (sm_90), was made from.

        The emulator runs that: which code is loaded is tested so, and nothing of the code itself.
        """
        self._library.standin_add_compiled(code, len(code), ptx.encode(), architecture)

    def clear(self) -> None:
        """Forget the faults that have not struck, and give back lost devices."""
        self._library.standin_clear()

    def calls(self) -> Counter[str]:
        """How often each function was called."""
        return +Counter(self.report("calls"))

    def log(self) -> list[Logged]:
        return [Logged(*entry) for entry in self.report("log")]

    def launches(self) -> list[Launch]:
        return [Launch(name, tuple(g), tuple(b)) for name, g, b in self.report("launches")]

    def last_launch_ns(self) -> int:
        """When cuLaunchKernel was last entered, as time.monotonic_ns() tells time."""
        launched: int = self._library.standin_last_launch_ns()
        return launched

    def live(self) -> dict[str, int]:
        """How many there are of each kind: contexts retained, allocations, bytes, streams, ...

        "current" is how many contexts are on the calling thread's stack.
        """
        counts: dict[str, int] = self.report("live")
        return counts

    def misuse(self) -> list[str]:
        """Calls that a correct program does not make: unknown handles, bad arguments, ..."""
        found: list[str] = self.report("misuse")
        return found

    def leaks(self) -> list[str]:
        """What was never freed when its context was destroyed."""
        found: list[str] = self.report("leaks")
        return found

    def failures(self) -> list[str]:
        """Why queued work failed."""
        found: list[str] = self.report("failures")
        return found

    def assert_clean(self) -> None:
        """Everything was given back, and no call was a wrong one.

        A context may be left current: where popping it failed, nobody can do better.
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
    """Where the library is, for processes of their own."""
    return build(native_folder)


@pytest.fixture(scope="session")
def standin_library(request: pytest.FixtureRequest) -> StandIn:
    if other_driver():
        pytest.skip(f"this process has loaded {other_driver()}")
    directory: Path = request.getfixturevalue("standin_directory")
    return StandIn(directory / LIBRARY)


@pytest.fixture
def standin(standin_library: StandIn) -> Iterator[StandIn]:
    """The stand-in with one device, as after loading; checked afterwards."""
    standin_library.reset()
    yield standin_library
    gc.collect()
    try:
        standin_library.assert_clean()
    finally:
        standin_library.reset()
        standin_library.set(devices=0)
