"""What all tests share: the tiers, instruction sets, random tables, the naive answer.

By default slow tests are skipped, and tests whose tool is not there. ``--slow`` runs the slow ones;
``--full`` too, and fails when anything at all is skipped but for what this machine has no hardware
for: an instruction set, a GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import morphogen as mg
import morphogen.engine.cuda.ptx as ptx
from morphogen.engine.base import Engine
from native_build import native_folder
from ptx_emulator import emulator
from standin_driver import StandIn, standin, standin_directory, standin_library

__all__ = [
    "emulator",
    "native_folder",
    "standin",
    "standin_directory",
    "standin_library",
]

Bytes = npt.NDArray[np.uint8]

GUARD = 0xA5  # what guard bytes hold


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--full", action="store_true", help="run all tests, and fail where one skips")
    parser.addoption("--site", type=Path, metavar="FOLDER", help="the site of docs/, built already")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Asked for only where a test needs it: it loads the CUDA driver.
    if any("gpu" in item.keywords for item in items) and not mg.driver_status().usable:
        no_gpu = pytest.mark.skip(reason=f"{NO_GPU}: {mg.driver_status().reason}")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(no_gpu)
    if config.getoption("--slow") or config.getoption("--full"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


UNSUPPORTED = "this machine cannot run the instruction set"
NO_GPU = "gpu: this machine has no GPU that can be used"


def is_allowed(reason: str) -> bool:
    """Whether a test may be skipped for this reason even with --full."""
    return reason.startswith((UNSUPPORTED, NO_GPU))


def skip_reasons(stats: dict[str, list[Any]]) -> Counter[str]:
    """How many tests were skipped for each reason."""
    return Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With --full, a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not session.config.getoption("--full"):
        return
    if not all(is_allowed(reason) for reason in skip_reasons(reporter.stats)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Count what was skipped, so that nobody takes a skipped test for a passed one."""
    reasons = skip_reasons(terminalreporter.stats)
    terminalreporter.section(f"tests skipped: {reasons.total()}")
    for reason, count in reasons.most_common():
        fails = config.getoption("--full") and not is_allowed(reason)
        mark = "  (--full allows no skipping)" if fails else ""
        terminalreporter.write_line(f"{count:5} {reason}{mark}")


@pytest.fixture
def gpu(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A machine with one GPU, or what passes for one; checked afterwards for leaks and misuse.

    It takes PTX, whether or not this build has compiled code beside it: see test_cuda_compiled.py.
    """
    monkeypatch.setattr(ptx, "MANIFEST", "hidden")
    mg.driver_status.cache_clear()
    yield standin
    mg.driver_status.cache_clear()


@pytest.fixture(scope="session", params=mg.instruction_set.compiled())
def instruction_set(request: pytest.FixtureRequest) -> str:
    """Each instruction set of this build in turn."""
    name: str = request.param
    if name not in mg.instruction_set.supported():
        pytest.skip(f"{UNSUPPORTED} {name}")
    return name


def random_table(num_pages: int, page_size: int, seed: int = 0) -> Bytes:
    """Random pages: uint8[num_pages, page_size]."""
    rng = np.random.default_rng([seed, num_pages, page_size])
    return rng.integers(0, 256, (num_pages, page_size), dtype=np.uint8)


def unpack(bits: Bytes, num_pages: int) -> npt.NDArray[np.bool_]:
    """Selection bits, one bool a page."""
    return np.unpackbits(bits, count=num_pages, bitorder="little").astype(bool)


def naive_answer(pages: Bytes, key: bytes) -> Bytes:
    """XOR of the pages that a key selects."""
    selected = unpack(mg.dpf.eval_full(key, len(pages)), len(pages))
    return np.bitwise_xor.reduce(pages[selected], axis=0, initial=0, dtype=np.uint8)


def naive_answers(pages: Bytes, queries: Sequence[mg.Query]) -> Bytes:
    """The naive answer to a batch: uint8[queries, keys per query, page_size]."""
    per_query = len(queries[0].keys) if queries else 3
    answers = [naive_answer(pages, key) for query in queries for key in query.keys]
    return np.array(answers, dtype=np.uint8).reshape(len(queries), per_query, pages.shape[1])


def guarded(shape: tuple[int, ...], offset: int = 3, content: Any = None) -> tuple[Bytes, Bytes]:
    """An array at an offset from a cache line, amid guard bytes, and the memory it lies in."""
    size = int(np.prod(shape))
    memory = np.full(size + 256, GUARD, dtype=np.uint8)
    start = 64 - memory.ctypes.data % 64 + offset
    array = memory[start:][:size].reshape(shape)
    if content is not None:
        array[...] = content
    return array, memory


def assert_guards(array: Bytes, memory: Bytes) -> None:
    start = array.ctypes.data - memory.ctypes.data
    assert (memory[:start] == GUARD).all()
    assert (memory[start + array.size :] == GUARD).all()


def open_engine(table: Bytes | mg.PageMatrix, **options: Any) -> Engine:
    pages = table if isinstance(table, mg.PageMatrix) else mg.PageMatrix(table)
    return mg.open_engine(pages, device="cpu", **options)


def random_rows(total: int, keys: int, num_pages: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, total, keys]).integers(0, num_pages, (total, keys))
