"""The threads of a CPU engine by default: affinity, the cgroup's quota, what Python was told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from morphogen.cli import main
from morphogen.engine import cores
from morphogen.engine.cores import LIMITS, UsableCores, usable_cores
from morphogen.engine.cpu import CpuEngine
from morphogen.pages import PageMatrix
from naive import random_pages

CGROUP2 = "30 20 0:26 {top} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
CGROUP1 = "31 20 0:27 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
OTHERS = (
    "22 1 8:1 / / rw,relatime - ext4 /dev/root rw",
    "32 20 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset",
    "33 20 0:29 / /tmp/a\\040folder rw - tmpfs  rw,size=1k",
)
FOLDERS = {CGROUP2: "sys/fs/cgroup", CGROUP1: "sys/fs/cgroup/cpu,cpuacct"}


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 cores, and nothing told to Python."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)


def machine(
    root: Path, mount: str, path: str, quotas: dict[str, str], *, top: str = "/"
) -> UsableCores:
    """Write the files of a cgroup that the kernel shows, and count the cores.

    ``quotas`` has "quota period" for each folder, and the kernel's own words for none.
    """
    (root / "proc/self").mkdir(parents=True)
    line = f"0::{path}" if mount == CGROUP2 else f"5:cpu,cpuacct:{path}"
    (root / "proc/self/cgroup").write_text(f"7:cpuset:/elsewhere\n{line}\n")
    mounts = [*OTHERS, mount.format(top=top)]
    (root / "proc/self/mountinfo").write_text("".join(f"{line}\n" for line in mounts))
    for below, quota in quotas.items():
        folder = root / FOLDERS[mount] / below
        folder.mkdir(parents=True, exist_ok=True)
        if mount == CGROUP2:
            (folder / "cpu.max").write_text(f"{quota}\n")
        else:
            amount, period = quota.replace("max", "-1").split()
            (folder / "cpu.cfs_quota_us").write_text(f"{amount}\n")
            (folder / "cpu.cfs_period_us").write_text(f"{period}\n")
    return usable_cores(root)


@pytest.mark.parametrize("mount", [CGROUP2, CGROUP1], ids=["version 2", "version 1"])
@pytest.mark.parametrize(
    ("quota", "count"),
    [
        ("400000 100000", 4),
        ("150000 100000", 1),
        ("199999 100000", 1),
        ("20000 100000", 1),
        ("25000 10000", 2),
        ("6400000 100000", 64),
    ],
)
def test_a_quota_counts_by_its_whole_cores(
    tmp_path: Path, mount: str, quota: str, count: int
) -> None:
    limit = "quota" if count < 64 else "affinity"
    assert machine(tmp_path, mount, "/", {"": quota}) == UsableCores(count, limit)


@pytest.mark.parametrize("mount", [CGROUP2, CGROUP1], ids=["version 2", "version 1"])
def test_the_lowest_quota_counts_of_a_cgroup_and_those_it_lies_in(
    tmp_path: Path, mount: str
) -> None:
    quotas = {"a": "300000 100000", "a/b": "max 100000", "a/b/c": "500000 100000"}
    assert machine(tmp_path, mount, "/a/b/c", quotas) == UsableCores(3, "quota")


@pytest.mark.parametrize("mount", [CGROUP2, CGROUP1], ids=["version 2", "version 1"])
@pytest.mark.parametrize(
    ("path", "top"),
    [("/docker/1f", "/docker/1f"), ("/docker/1f", "/docker/1"), ("/../1f", "/"), ("/", "/../..")],
)
def test_a_container_sees_its_own_cgroup_under_another_path(
    tmp_path: Path, mount: str, path: str, top: str
) -> None:
    cores = machine(tmp_path, mount, path, {"": "200000 100000"}, top=top)
    assert cores == UsableCores(2, "quota")


@pytest.mark.parametrize("mount", [CGROUP2, CGROUP1], ids=["version 2", "version 1"])
def test_a_cgroup_without_a_quota_leaves_the_affinity(tmp_path: Path, mount: str) -> None:
    assert machine(tmp_path, mount, "/a", {"a": "max 100000"}) == UsableCores(64, "affinity")


def test_a_system_without_cgroups_leaves_the_affinity(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == UsableCores(64, "affinity")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("not what a kernel writes\n")
    assert usable_cores(tmp_path) == UsableCores(64, "affinity")


def test_what_python_was_told_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert usable_cores(tmp_path) == UsableCores(3, "process_cpu_count")
    assert machine(tmp_path, CGROUP2, "/", {"": "200000 100000"}) == UsableCores(2, "quota")
    monkeypatch.setattr(os, "process_cpu_count", lambda: None, raising=False)
    assert usable_cores(tmp_path).limit == "quota"


@pytest.mark.parametrize(
    ("value", "count"),
    [("3", 3), ("003", 3), ("65", 64), ("", 64), ("default", 64), ("0", 64), ("-2", 64)],
)
def test_before_python_3_13_its_variable_is_read_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, count: int
) -> None:
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setenv("PYTHON_CPU_COUNT", value)
    assert usable_cores(tmp_path).count == count


def test_an_engine_has_a_thread_for_each_usable_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_quota", lambda root: 3)
    pages = PageMatrix(random_pages(5, 5))
    with CpuEngine(pages) as engine:
        assert engine.threads == 3
    with CpuEngine(pages, threads=5) as engine:
        assert engine.threads == 5


@pytest.mark.parametrize("limit", LIMITS)
def test_doctor_says_which_limit_gives_the_threads(
    limit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = dict.fromkeys(LIMITS, 3) | {limit: 2}
    monkeypatch.setattr(cores, "_affinity", lambda: counts["affinity"])
    monkeypatch.setattr(cores, "_quota", lambda root: counts["quota"])
    monkeypatch.setattr(cores, "_told", lambda: counts["process_cpu_count"])
    assert main(["doctor"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"threads 2: {LIMITS[limit]} (the machine has {os.cpu_count()})" in text
    assert main(["doctor", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["threads"], data["threads_limit"]) == (2, limit)
