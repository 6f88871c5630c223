"""The rules of a test session, and fixtures that many tests share.

By default pytest skips slow tests and tests whose tool is missing. ``--slow`` runs the slow tests.
``--full`` runs them too, and fails if a test is skipped for any reason but missing hardware: an
instruction set or a GPU. ``--full --remaining`` after a session of the whole suite runs the tests
that it did not run, for example because their tool was not yet installed.
"""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import morphogen as mg
import morphogen.engine.cuda.ptx as ptx
from native_build import native_folder
from ptx_emulator import emulator
from standin_driver import StandIn, standin, standin_directory, standin_library
from tiers import NO_GPU, UNSUPPORTED

__all__ = [
    "emulator",
    "native_folder",
    "standin",
    "standin_directory",
    "standin_library",
]

MOST_WORKERS = 8  # each collects all tests for itself
# A worker runs a whole file. Those that take a minute and more begin first, or one worker would
# end long after the others.
LONGEST = (
    "tests/tools/test_gpu_rehearsal.py",
    "tests/asv_bench/test_continuous.py",
    "tests/asv_bench/test_budget.py",
)
PASSED = "morphogen/passed"  # in pytest's cache: the tests that passed


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--full", action="store_true", help="run all tests, and fail where one skips")
    parser.addoption(
        "--remaining",
        action="store_true",
        help="run only the tests that did not pass in the last session of the whole suite",
    )
    parser.addoption("--site", type=Path, metavar="FOLDER", help="the site of docs/, built already")
    parser.addoption(
        "--gpu-host",
        type=Path,
        metavar="FOLDER",
        help="rehearse a GPU's first hour with FOLDER/env and FOLDER/wheels of tools/gpu/wheels.sh",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--remaining"):
        last_passed(config)  # or an error, before a worker process starts


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Heed Ctrl-C, which nohup and a shell's background have this process ignore."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=[1, 300, 1 << 20], ids=lambda size: f"chunks of {size} bytes")
def chunk_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes of pages that a tree is recomputed from at a time: one page, a few, or all."""
    size: int = request.param
    monkeypatch.setattr("morphogen.authentication.tree._CHUNK_BYTES", size)
    return size


# Worker processes


def is_whole_suite(config: pytest.Config) -> bool:
    """Return whether the command line names no file or folder."""
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run the whole suite in a process for each core, and a part of it in this process."""
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS) if is_whole_suite(config) else 0


# Tiers


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--remaining"):
        passed = last_passed(config)
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
        items[:] = [item for item in items if item.nodeid not in passed]
    if is_whole_suite(config):
        sizes = Counter(map(file_of, items))
        items.sort(key=lambda item: (file_of(item) not in LONGEST, -sizes[file_of(item)]))
    # driver_status() loads the CUDA driver, so ask only if a test needs a GPU.
    if any("gpu" in item.keywords for item in items) and not mg.driver_status().usable:
        no_gpu = pytest.mark.skip(reason=f"{NO_GPU}: {mg.driver_status().reason}")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(no_gpu)
    if find_spec("ray") is None:  # its import takes a second
        no_ray = pytest.mark.skip(reason="needs Ray: pip install '.[ray]'")
        for item in items:
            if "ray" in item.keywords:
                item.add_marker(no_ray)
    if config.getoption("--slow") or config.getoption("--full"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Leave what was collected and imported out of the collections of garbage within tests.

    Thousands of tests are millions of objects, and a test of the GPU engine ends by a collection.
    """
    gc.freeze()


def file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def last_passed(config: pytest.Config) -> frozenset[str]:
    """Return the tests that passed in the last session of the whole suite."""
    cache = getattr(config, "cache", None)
    if cache is None:
        raise pytest.UsageError("--remaining: needs pytest's cache")
    passed = cache.get(PASSED, None)
    if passed is None:
        raise pytest.UsageError("--remaining: no session has run the whole suite here")
    return frozenset(passed)


def is_allowed(reason: str) -> bool:
    """Return whether a test may be skipped for this reason even with --full."""
    return reason.startswith((UNSUPPORTED, NO_GPU))


def skip_reasons(stats: dict[str, list[Any]]) -> Counter[str]:
    """Count the skipped tests of each reason."""
    return Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Note which tests passed, and fail a session with --full that skipped a test."""
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker process
        return
    cache = getattr(config, "cache", None)
    part = config.getoption("--remaining") or config.option.collectonly
    if cache is not None and is_whole_suite(config) and not part:
        cache.set(PASSED, [report.nodeid for report in reporter.stats.get("passed", [])])
    allowed = all(is_allowed(reason) for reason in skip_reasons(reporter.stats))
    if config.getoption("--full") and not allowed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print how many tests were skipped, so that nobody takes a skipped test for a passed one."""
    reasons = skip_reasons(terminalreporter.stats)
    terminalreporter.section(f"tests skipped: {reasons.total()}")
    for reason, count in reasons.most_common():
        fails = config.getoption("--full") and not is_allowed(reason)
        mark = "  (--full allows no skipping)" if fails else ""
        terminalreporter.write_line(f"{count:5} {reason}{mark}")


# Fixtures


@pytest.fixture
def gpu(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Provide a machine with one stand-in GPU, and check afterwards for leaks and misuse.

    The engine loads PTX even if this build has compiled code beside it: see test_cuda_compiled.py.
    """
    monkeypatch.setattr(ptx, "MANIFEST", "hidden")
    monkeypatch.setenv("MORPHOGEN_TUNING", "")  # whatever the user has
    mg.driver_status.cache_clear()
    yield standin
    mg.driver_status.cache_clear()


@pytest.fixture(scope="session", params=mg.instruction_set.compiled())
def instruction_set(request: pytest.FixtureRequest) -> str:
    """Run a test with each instruction set of this build."""
    name: str = request.param
    if name not in mg.instruction_set.supported():
        pytest.skip(f"{UNSUPPORTED} {name}")
    return name
