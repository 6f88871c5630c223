"""The rules of a test session, and the fixtures of many tests.

By default slow tests are skipped, and tests whose tool is not there. ``--slow`` runs the slow ones;
``--full`` too, and fails when anything at all is skipped but for what this machine has no hardware
for: an instruction set, a GPU. ``--full --remaining`` after a session of the whole suite runs what
that one did not, such as tests whose tool was installed since.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
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


# Worker processes


def is_whole_suite(config: pytest.Config) -> bool:
    """Whether no file or folder was named."""
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The whole suite takes a process for each core; a part of it runs in this one."""
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS) if is_whole_suite(config) else 0


# Tiers


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--remaining"):
        passed = last_passed(config)
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
        items[:] = [item for item in items if item.nodeid not in passed]
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


def last_passed(config: pytest.Config) -> frozenset[str]:
    """The tests that passed in the last session of the whole suite."""
    cache = getattr(config, "cache", None)
    if cache is None:
        raise pytest.UsageError("--remaining: needs pytest's cache")
    passed = cache.get(PASSED, None)
    if passed is None:
        raise pytest.UsageError("--remaining: no session has run the whole suite here")
    return frozenset(passed)


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
    """Keep what passed, for --remaining. With --full, a skipped test is a failure."""
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
    """Count what was skipped, so that nobody takes a skipped test for a passed one."""
    reasons = skip_reasons(terminalreporter.stats)
    terminalreporter.section(f"tests skipped: {reasons.total()}")
    for reason, count in reasons.most_common():
        fails = config.getoption("--full") and not is_allowed(reason)
        mark = "  (--full allows no skipping)" if fails else ""
        terminalreporter.write_line(f"{count:5} {reason}{mark}")


# Fixtures


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
