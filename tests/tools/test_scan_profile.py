"""tools/scan_profile.py: how parts follow from times, what is refused, names of samples."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scan_profile
import scan_samples
from marked_markdown import markers
from measure_targets import Target
from morphogen import instruction_set
from scan_parts import Case, Profile

CASE = Case(pages=1000, page_size=4096, queries=2, keys=3, threads=1)
# Per page 3 us of scan and 1 us of trees; 50 us a call; a pass of 9 ms over a read of 5.
TIMES = {
    "pass": 9e-3,
    "read": 5e-3,
    "trees": 1e-3,
    "small": 50e-6 + 10 * 4e-6,
    "small trees": 10 * 1e-6,
    "double": 50e-6 + 20 * 4e-6,
    "double trees": 20 * 1e-6,
}
RUN = ["--shape", "512x64", "--rounds", "1"]


def profile(
    case: Case = CASE,
    times: Mapping[str, float] = TIMES,
    ratio: float = 1.8,
    target: Target | None = None,
) -> Profile:
    rounds = {what: np.full(3, seconds) for what, seconds in times.items()}
    return Profile.of(case, rounds, 10, ratio, target)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["scan_profile.py", *arguments])
    return scan_profile.main()


def test_parts_follow_from_the_times():
    found = profile()
    parts = {"pass": 9e-3, "read": 5e-3, "trees": 1e-3, "scan": 3e-3, "call": 50e-6, "rest": 4e-3}
    assert found.parts == pytest.approx(parts)
    assert found.work == pytest.approx(4.05e-3)
    assert found.small_bytes == 20 * 4096


def test_threads_share_trees_and_scan():
    found = profile(Case(1000, 4096, 2, 3, threads=2))
    assert (found.trees, found.scan) == pytest.approx((0.5e-3, 1.5e-3))
    assert found.read == pytest.approx(5e-3)


@pytest.mark.parametrize(("ratio", "met"), [(1.15, True), (1.16, False)])
def test_the_ratio_is_judged(ratio: float, met: bool):
    assert profile(ratio=ratio, target=Target(1.15, "<= 1.15x")).met is met
    assert profile(ratio=ratio).met


def test_a_stopwatch_shares_processor_time_and_keeps_the_wall_s(monkeypatch: pytest.MonkeyPatch):
    """Two threads that run 3 ms each in a call of 4 ms."""
    clocks = {"perf_counter": 0.0, "process_time": 0.0}

    def call() -> None:
        clocks["perf_counter"] += 4e-3
        clocks["process_time"] += 6e-3

    for name in clocks:
        monkeypatch.setattr(scan_profile.time, name, lambda name=name: clocks[name])
    watch = scan_profile.Stopwatch(call, threads=2)
    assert [watch(), watch()] == pytest.approx([3e-3, 3e-3])
    assert watch.wall == pytest.approx([4e-3, 4e-3])


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"pass": 5.5e-3}, "the read decides"),
        ({"pass": 5.5e-3, "read": 6e-3, "trees": 9e-3}, "expanding trees decides"),
        ({"pass": 4.1e-3, "read": 1e-3}, "the scan decides"),
        ({"pass": 7e-3}, "read and work overlap in part"),
        ({"pass": 9.1e-3}, "longer than read and work in turn"),
        (
            {"double": TIMES["small"]},
            "unknown: the scan was lost in the noise of the calls it was measured with",
        ),
    ],
)
def test_what_decides_is_computed(changes: dict[str, float], outcome: str):
    assert profile(times={**TIMES, **changes}).outcome == outcome


def test_small_tables_fit_the_second_level_cache(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scan_profile, "cache_bytes", lambda level: 2 << 20)
    assert scan_profile.small_pages(32) == 8192
    assert scan_profile.small_pages(4096) == 64
    assert scan_profile.small_pages(65536) == 32  # whole tiles, even if they do not fit
    for size in (32, 256, 1024, 4096):
        assert 2 * scan_profile.small_pages(size) * size <= 1 << 19


def test_every_row_with_a_target_is_profiled():
    cases = scan_profile.cases(scan_profile.parse_arguments([]))
    assert len(cases) == 40
    assert all(scan_profile.target_of(case) for case in cases)
    assert all(case.pages * case.page_size == 256 << 20 for case in cases)


@pytest.mark.parametrize("queries", [1, 8])
def test_a_tiny_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], queries: int
):
    name = instruction_set.supported()[-1]
    arguments = [*RUN, "--queries", str(queries), "--threads", "2", "--instruction-set", name]
    assert run(monkeypatch, *arguments, "--json") == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    (found,) = result["profiles"]
    assert found["case"] == {
        "pages": 512,
        "page_size": 64,
        "queries": queries,
        "keys": 3,
        "threads": 2,
        "instruction_set": name,
    }
    assert found["whole"] > 0
    assert found["read"] > 0
    assert found["trees"] > 0
    assert min(found["scan"], found["call"]) >= 0
    assert found["parts"]["pass"] == found["whole"]
    assert run(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    assert all(f" {part} " in shown for part in found["parts"])


def test_only_rows_that_miss_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    missing = profile(target=Target(1.15, "<= 1.15x"))
    meeting = profile(ratio=1.1, target=Target(1.15, "<= 1.15x"))
    monkeypatch.setattr(scan_profile, "profiles", lambda chosen, rounds: [missing, meeting])
    file = tmp_path / "doc.md"
    assert run(monkeypatch, "--markdown", str(file), "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert [found["whole"] for found in result["profiles"]] == [9e-3]
    assert "2 rows have a target, 1 miss it." in result["notes"]
    begin, end = markers("scan_profile.py")
    text = file.read_text()
    assert text.startswith(begin)
    assert text.rstrip().endswith(end)
    row = "| 4,096 | 1 | 2 x 3 | 1.80x | <= 1.15x | 9.00 | 5.00 (56%) | 1.00 (11%) | 3.00 (33%) |"
    assert row in text
    assert "`python tools/scan_profile.py`\n\n| page |" in text
    assert run(monkeypatch, "--all", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["profiles"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "512"], "invalid shape value: '512'"),
        (["--shape", "1x4096"], "invalid shape value: '1x4096'"),
        (["--shape", "512x64", "--queries", "0"], "--queries must be 1 or more, not 0"),
        (["--shape", f"{2**40}x4096"], "of memory are available"),
        (["--threads", "2"], "--threads goes with --shape"),
        (["--instruction-set", "mmx"], "invalid choice: 'mmx'"),
        (["--rounds", "0"], "--rounds must be 1 or more, not 0"),
        (["--markdown", __file__], "lacks the lines"),
    ],
)
def test_bad_options_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        scan_profile.parse_arguments(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_more_queries_than_one_pass_takes_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch, *RUN, "--queries", "1000") == 2
    assert "one pass, not 1000" in " ".join(capsys.readouterr().err.split())


def test_sampling_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "perf" else f"/bin/{tool}")
    assert run(monkeypatch, *RUN, "--functions") == 2
    assert "--functions needs perf" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "which", lambda tool: f"/bin/{tool}")
    monkeypatch.setattr(scan_samples, "_output", lambda *command: "no such section")
    with pytest.raises(scan_samples.NoSamplesError, match=r"-Cinstall\.strip=false"):
        scan_samples.sample(CASE)


def test_samples_are_counted_by_innermost_function(monkeypatch: pytest.MonkeyPatch):
    """With what perf, readelf and addr2line print in place of the programs."""
    library = instruction_set.__file__
    wrapped = (
        "0x0000000000000010\n"
        "morphogen::(anonymous namespace)::Column<64>::load(unsigned char const*)\n"
        "/src/simd.h:10\n"
        "morphogen::(anonymous namespace)::MaskMethod<64, 6ul>::add_column(int)\n"
        "/src/scan_masks.h:40 (discriminator 2)\n"
        "void morphogen::(anonymous namespace)::scan_run<MaskMethod<64, 6ul> >(PageRun const&)\n"
        "/src/page_scan.h:99\n"
    )
    plain = (
        "0x0000000000000020\n"
        "void morphogen::(anonymous namespace)::scan_run<MaskMethod<64, 6ul> >(PageRun const&)\n"
        "/src/page_scan.h:99\n"
    )

    def output(*command: str) -> str:
        if command[0] == "readelf":
            return "[29] .debug_line"
        if command[0] == "addr2line":
            assert command[-2:] == ("0x10", "0x20")
            return wrapped + plain
        if command[1] == "record":
            return "7f0000000000\n"
        places = ["7f0000000010"] * 3 + ["7f0000000020"]
        return "".join(f" {place} ({library})\n" for place in places) + " 55 (/bin/python)\n"

    monkeypatch.setattr(shutil, "which", lambda tool: f"/bin/{tool}")
    monkeypatch.setattr(scan_samples, "_output", output)
    found = scan_samples.sample(CASE)
    assert found.samples == 4
    assert found.shares == {
        "MaskMethod<64, 6ul>::add_column (scan_masks.h)": 0.75,
        "scan_run<MaskMethod<64, 6ul> > (page_scan.h)": 0.25,
    }
