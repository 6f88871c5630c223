"""tools/measure.py: verdicts, summaries and files; the figures themselves are the machine's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import machine_facts
import measure
from marked_markdown import markers
from measure_report import as_dict, cells, describe_misses, markdown, summary
from measure_targets import (
    PAGE_SIZES,
    THREADS,
    Row,
    Spread,
    Target,
    pass_target,
    speedup_target,
)

TINY = ["--pages", "64", "--rounds", "1", "--threads", "1,2", "--page-sizes", "32,4096,65536"]


def row(value: float, target: Target | None, page_size: int | None = None) -> Row:
    spread = Spread(value - 0.1, value, value + 0.1)
    return Row("Passes", "1 query x 1 key", Spread(1e-3, 2e-3, 3e-3), spread, target, page_size)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's time needs a compiler and half a minute: it has a test of its own."""

    def no_driver() -> None:
        raise measure.NotMeasuredError("Host time to a launch was not measured: no compiler")

    monkeypatch.setattr(measure, "host_rows", no_driver)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["measure.py", *TINY, *arguments])
    return measure.main()


@pytest.mark.parametrize(
    ("value", "at_least", "verdict"),
    [
        (1.10, False, "pass"),
        (1.101, False, "FAIL"),
        (1.10, True, "pass"),
        (1.099, True, "FAIL"),
    ],
)
def test_a_limit_itself_is_met(value: float, at_least: bool, verdict: str):
    assert row(value, Target(1.10, "1.10x", at_least)).verdict == verdict


def test_a_row_without_a_target_has_no_verdict():
    assert row(9.0, None).verdict == ""


def test_every_page_size_and_thread_count_is_judged_and_the_table_s_own_rows_are_marked():
    for page_size in PAGE_SIZES:
        for threads in THREADS:
            one, two = (pass_target(*shape, page_size, threads) for shape in ((1, 1), (2, 3)))
            eight, most = (speedup_target(size, page_size, threads) for size in (8, 32))
            own = page_size == 4096 and threads == 1
            targets = [target for target in (one, two, eight, most) if target]
            assert [target.limit for target in targets] == [1.10, 1.15, 6, 10]
            assert [target.own for target in targets] == [own] * 4
    assert pass_target(1, 3, 4096, 1) is None
    assert speedup_target(4, 4096, 1) is None


def test_the_summary_counts_and_names_what_is_missed():
    own = Target(1.10, "<= 1.10x")
    other = Target(1.10, "<= 1.10x", own=False)
    rows = [row(1.05, own, 4096), row(1.104, own, 64), row(1.3, other, 32), row(1.0, None)]
    assert summary(rows) == (
        "1 of 3 rows meet their target; 1 of 2 of those of the table of targets itself (*)."
    )
    assert describe_misses(rows) == [
        "Passes: 1 query x 1 key (wanted <= 1.10x): 64 B 1.104x *, 32 B 1.300x"
    ]
    assert as_dict({}, rows, [])["missed"] == describe_misses(rows)


def test_a_row_in_words():
    assert cells(row(1.25, Target(1.1, "<= 1.10x"), 4096)) == (
        *("4,096", "1 query x 1 key", "2 ms", "1.25x", "1.15 to 1.35", "<= 1.10x *", "FAIL"),
    )


def test_markdown_has_the_command_with_every_table():
    text = markdown({"date": "today"}, [row(1.0, None)], ["A note."], "python tools/measure.py")
    assert "### Passes\n\n`python tools/measure.py`\n\n| what |" in text


@pytest.mark.usefixtures("tiny")
def test_a_tiny_run_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert run(monkeypatch, "--json") == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    found = {(row["section"], row["page_size"], row["what"]) for row in result["rows"]}
    for threads in (1, 2):
        for size in (32, 4096, 65536):
            for what in ("1 query x 1 key", "1 query x 3 keys", "2 queries x 3 keys"):
                assert (f"One pass against a pure read, threads: {threads}", size, what) in found
            for batch in (2, 4, 8, 16, 32):
                section = f"Batch against single-query loop, threads: {threads}"
                assert (section, size, f"{batch} queries x 3 keys") in found
    assert any(row["what"] == "import morphogen" for row in result["rows"])
    # What could not be measured, and that a table in the caches is not judged.
    assert any("no compiler" in note for note in result["notes"])
    assert any("not judged" in note for note in result["notes"])
    assert all(row["seconds"]["median"] > 0 for row in result["rows"])
    assert not any(row["target"] for row in result["rows"] if row["page_size"])


@pytest.mark.usefixtures("tiny")
def test_strict_fails_where_a_target_is_missed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "GEN_TARGET", Target(0.0, "<= 0 us"))
    assert run(monkeypatch) == 0
    assert run(monkeypatch, "--strict") == 1


@pytest.mark.usefixtures("tiny")
def test_wrong_answers_end_the_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "naive_answer", lambda pages, query: pages[:3] ^ 1)
    with pytest.raises(SystemExit, match="differs from the naive XOR"):
        run(monkeypatch)


@pytest.mark.usefixtures("tiny")
def test_markdown_goes_between_the_markers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    begin, end = markers("measure.py")
    file = tmp_path / "doc.md"
    file.write_text(f"Before.\n\n{begin}\nold\n{end}\n\nAfter.\n")
    assert run(monkeypatch, "--markdown", str(file)) == 0
    text = file.read_text()
    assert text.startswith(f"Before.\n\n{begin}\n")
    assert text.endswith(f"{end}\n\nAfter.\n")
    assert "| 65,536 | 32 queries x 3 keys |" in text
    assert "\nold\n" not in text


def test_host_time_that_cannot_be_measured_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "ROOT", Path("/nowhere"))
    with pytest.raises(measure.NotMeasuredError, match=r"was not measured: .*nowhere"):
        list(measure.host_rows())


def test_host_times_of_a_launch_and_of_a_replay_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    cases = [
        {"pages": 65_536, "queries": 2, "graph": graph}
        | {f"to_launch{end}": 2.5 for end in ("_25", "", "_75")}
        for graph in (False, True)
    ]
    done = subprocess.CompletedProcess([], 0, stdout=json.dumps(cases), stderr="")
    monkeypatch.setattr(measure.subprocess, "run", lambda *arguments, **options: done)
    assert [row.what for row in measure.host_rows()] == [
        "65,536 pages, a chunk of 2",
        "65,536 pages, a chunk of 2, replayed",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds must be 1 or more, not 0"),
        (["--pages", "1", "--page-sizes", "65536"], "must hold whole pages of every size"),
        (["--pages", "0"], "must hold whole pages"),
        (["--pages", str(2**40)], "of memory"),
        (["--threads", "0"], "invalid numbers value: '0'"),
        (["--markdown", __file__], "lacks the lines"),
        (["--markdown", "/no/such/folder/x.md"], "/no/such/folder is not a folder"),
    ],
)
def test_bad_options_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        measure.parse_arguments(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_machine_is_described():
    facts = machine_facts.describe_machine(machine_facts.OtherPrograms())
    assert facts.keys() >= {"date", "commit", "processor", "caches", "instruction set"}
    assert all(facts.values())
    assert 0 <= machine_facts.OtherPrograms().share() <= 1
