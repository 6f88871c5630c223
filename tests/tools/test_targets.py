"""tools/measure/targets.py: verdicts and choice of sections. The figures depend on the machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import machine_facts
import passes
import targets
from rows import NotMeasuredError, Row, describe, summary

TINY = ["--mib", "1", "--rounds", "1", "--page-sizes", "1,48,4096", "--build-rows", "20000"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["targets.py", *TINY, *arguments])
    return targets.main()


@pytest.mark.parametrize(
    ("value", "at_least", "missed"),
    [(1.10, False, False), (1.101, False, True), (1.10, True, False), (1.099, True, True)],
)
def test_a_limit_itself_is_met(value: float, at_least: bool, missed: bool) -> None:
    assert Row("", "", value, "x", 1.10, at_least).missed == missed


def test_a_row_without_a_limit_is_not_judged() -> None:
    rows = [Row("", "", 9.0, "x"), Row("", "", 9.0, "x", 1.0), Row("", "", 1.0, "x", 1.0)]
    assert [row.missed for row in rows] == [False, True, False]
    assert summary(rows) == "1 of 2 targets are met."


def test_a_row_in_words() -> None:
    row = Row.of("Passes", "1 query", np.array([1e-3, 2e-3, 3e-3]), "s", 1.5e-3)
    assert row.cells() == ("1 query", "2 ms", "1.5 ms to 2.5 ms", "<= 1.5 ms", "MISSED")
    row = Row("Lookups", "64 tasks", 2345.6, "/s", 2000, at_least=True)
    assert row.cells() == ("64 tasks", "2,346 /s", "", ">= 2,000 /s", "met")
    assert describe(2.5e-9, "s") == "2.5 ns"
    assert describe(64 << 20, "bytes") == "64.0 MiB"


def test_the_limits_are_the_design_s() -> None:
    """A few of each kind, read off its table by hand."""
    assert [passes.cost_limit(shape, 4096, 1) for shape in passes.COSTS] == [1.1, 1.15, 1.25, 1.8]
    assert [passes.cost_limit(shape, 4096, 2) for shape in passes.COSTS] == [1.3, 1.4, 2, 5]
    assert [passes.cost_limit(shape, 48, 1) for shape in passes.COSTS] == [1.3, 1.4, 4, 10]
    assert [passes.cost_limit(shape, 8, 1) for shape in passes.COSTS] == [1.6, 5, 4, 10]
    assert [passes.cost_limit(shape, 2, 2) for shape in passes.COSTS] == [2.5, 5, 4, 10]
    assert len(passes.PAGE_SIZES) == 18


@pytest.mark.slow
def test_a_tiny_run_of_every_section(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The host's time takes half a minute, and another test measures it.
    def no_driver(options: object) -> None:
        raise NotMeasuredError("Host time to a launch was not measured: no compiler")

    monkeypatch.setitem(targets.SECTIONS, "host", no_driver)
    assert run(monkeypatch, "--json") == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    found = {(row["section"], row["what"]) for row in result["rows"]}
    for size in ("1", "48", "4,096"):
        section = f"Pages of {size} bytes: queries x keys against a pure read"
        for threads in (1, 2):
            for batch in ("1 x 1", "2 x 3", "8 x 3", "32 x 3"):
                assert (section, f"{batch}, threads: {threads}") in found
        assert (section, "2 threads against 1, the least gain") in found
        assert (section, "memory of a pass for 32 x 3") in found
    others = " ".join(section for section, _ in found)
    kinds = (
        "Page sizes",
        "one core",
        "Keys",
        "Import",
        "Lookups over HTTP",
        "Building a keyword table of 20,000 rows",
        "Updating a keyword table of 20,000 rows",
        "A delta of 1 page in 1,000",
    )
    for words in kinds:
        assert words in others
    assert result["notes"] == [
        "Passes are not judged: their targets are for 256 MiB.",
        "Host time to a launch was not measured: no compiler",
    ]
    check = "of it, the check of its pages"  # a difference: of one round it may be below zero
    measured = [row for row in result["rows"] if row["unit"] != "bytes" and row["what"] != check]
    assert len(measured) > 30
    assert all(row["value"] > 0 for row in measured)
    assert not any(row["limit"] for row in result["rows"] if "Pages of" in row["section"])


def test_strict_fails_if_a_target_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "GEN_SECONDS", 0.0)
    assert run(monkeypatch, "--only", "keys") == 0
    assert run(monkeypatch, "--only", "keys", "--strict") == 1


def test_strict_fails_if_a_target_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver(options: object) -> None:
        raise NotMeasuredError("no compiler")

    monkeypatch.setitem(targets.SECTIONS, "host", no_driver)
    assert run(monkeypatch, "--only", "host", "--strict") == 1


def test_wrong_answers_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "naive_answer", lambda pages, query: pages[:3] ^ 1)
    with pytest.raises(SystemExit, match="is not the XOR of the pages"):
        run(monkeypatch, "--only", "passes")


def test_host_time_that_cannot_be_measured_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "ROOT", Path("/nowhere"))
    with pytest.raises(NotMeasuredError, match=r"was not measured: .*nowhere"):
        list(targets.host_rows(targets.parse_arguments([])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "must be 1 or more"),
        (["--mib", "1", "--page-sizes", "2000000"], "holds no page of 2000000 bytes"),
        (["--mib", str(2**30)], "of memory are needed"),
        (["--threads", "0"], "invalid numbers value: '0'"),
        (["--only", "keys,other"], "sections are passes, sweep, busy, keys"),
    ],
)
def test_bad_options_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        targets.parse_arguments(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_machine_is_described() -> None:
    facts = machine_facts.describe_machine(machine_facts.OtherPrograms())
    assert facts.keys() >= {"date", "commit", "processor", "instruction set"}
    assert all(facts.values())
    assert 0 <= machine_facts.OtherPrograms().share() <= 1
