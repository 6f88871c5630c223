"""The demo of breached passwords: a real table, two servers, and one that lies."""

from __future__ import annotations

import dataclasses
import json
from hashlib import sha1
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import morphogen.demo.breached as breached
from morphogen import dpf
from morphogen.cli import main
from morphogen.demo.passwords import (
    MOST_FOUND,
    find_in_list,
    make_passwords,
    prefix_of,
    write_list,
)
from morphogen.demo.relay import Relay

ENTRIES = 5000
Stages = list[tuple[int, int, str]]


@pytest.fixture(scope="module")
def run() -> tuple[breached.BreachedResult, Stages]:
    stages: Stages = []
    result = breached.run_breached_demo(
        ENTRIES, device="cpu", progress=lambda *told: stages.append(told)
    )
    return result, stages


@pytest.fixture(scope="module")
def result(run: tuple[breached.BreachedResult, Stages]) -> breached.BreachedResult:
    return run[0]


@pytest.fixture
def in_a_command(
    result: breached.BreachedResult, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """Let the command have the result that is there, and not run the demo again."""
    monkeypatch.setattr(breached, "run_breached_demo", lambda *_, **__: result)
    return monkeypatch


def test_what_is_found_is_what_the_list_says(result: breached.BreachedResult) -> None:
    made = islice(make_passwords(), ENTRIES)
    ranks = {password: rank for rank, password in enumerate(made, start=1)}
    assert {"123456", "password"} < {lookup.password for lookup in result.lookups}
    for lookup in result.lookups:
        rank = ranks.get(lookup.password)
        assert lookup.prefix == sha1(lookup.password.encode()).hexdigest()[:20].upper()
        assert lookup.count == (None if rank is None else MOST_FOUND // rank)
        assert lookup.right
    assert [lookup.count for lookup in result.lookups[-2:]] == [None, None]
    assert (result.compared, result.wrong, result.ok) == (64, 0, True)


def test_the_sizes_are_those_of_the_table_and_its_messages(result: breached.BreachedResult) -> None:
    assert result.entries == ENTRIES
    assert result.table_bytes == 4096 + result.num_pages * 4096 + result.cap_bytes
    assert result.cap_bytes == 32 * -(-result.num_pages >> result.proof_levels)
    keys, pages = 3 * dpf.key_size(result.num_pages), 3 * result.page_size
    assert keys < result.sent < keys + 600  # the head of the request, and the body's form
    assert pages < result.received < pages + 600


def test_a_miss_is_proven_and_lies_are_refused_alike(result: breached.BreachedResult) -> None:
    assert 1 <= len(result.proof) <= 3
    assert all(proof.proven for proof in result.proof)
    for proof in result.proof:
        assert proof.cap_node == proof.page >> result.proof_levels
        assert len(bytes.fromhex(proof.cap_hash)) == 32
    hit, miss = result.refused
    assert hit == miss != ""


def test_the_demo_tells_its_stages(run: tuple[breached.BreachedResult, Stages]) -> None:
    names = list(dict.fromkeys(name for _, _, name in run[1]))
    assert names[0] == "making the list"
    assert names[-2:] == ["starting the servers", "looking up"]
    assert len(names) > 3  # those of the builder between
    assert all(0 <= done <= total for done, total, _ in run[1])


@pytest.mark.usefixtures("in_a_command")
def test_the_result_as_json(
    result: breached.BreachedResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--breached", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data == json.loads(json.dumps(result.as_dict()))
    assert data["ok"] is True
    assert data["root"] == result.root
    assert data["lookups"][0]["password"] == "123456"


@pytest.mark.usefixtures("in_a_command")
def test_the_result_for_people(
    result: breached.BreachedResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--breached"]) == 0
    output = capsys.readouterr().out
    for words in (
        "5,000 passwords",
        result.root,
        "40,000,000 times",
        "not in the list",
        f"{result.sent:,}",
        f"{2 * result.received:,}",
        "proven",
        "Both servers see the same",
        "both lies were caught",
    ):
        assert words in output
    assert "…" not in output, "no cell is cut short"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"wrong": 1}, "1 lookups differ"),
        ({"refused": ("", "x")}, "NOT CAUGHT"),
        ({"proof": (breached.ProofOfPage(5, 0, "00" * 32, False),)}, "WRONG"),
    ],
)
def test_what_is_not_as_it_should_be_is_told(
    change: dict[str, Any],
    words: str,
    result: breached.BreachedResult,
    in_a_command: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoiled = dataclasses.replace(result, **change)
    in_a_command.setattr(breached, "run_breached_demo", lambda *_, **__: spoiled)
    assert main(["demo", "--breached"]) == 1
    output = capsys.readouterr().out
    assert words in output
    assert "both lies were caught" not in output
    assert main(["demo", "--breached", "--json"]) == 1


def test_a_lie_that_changes_nothing_and_a_wrong_list_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Relay, "lies", property(lambda _: False, lambda *_: None), raising=False)
    monkeypatch.setattr(breached, "find_in_list", lambda *_: 7)
    result = breached.run_breached_demo(1, device="cpu")
    assert result.refused == ("", "")
    assert result.wrong == len(result.lookups) + result.compared
    assert not result.ok


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--breached", "FILE"], "takes no FILE"),
        (["--breached", "--fetch", "1"], "takes no FILE, --fetch"),
        (["--breached", "--no-lookups"], "or --lookups"),
        (["--breached", "--entries", "0"], "entries must be"),
        (["--breached", "--entries", "5", "--page-size", "8"], "8"),
        (["--entries", "5"], "--breached"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert main(["demo", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert words in output.err


def test_such_a_list_is_a_table_by_the_command_line_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, table = str(tmp_path / "breached.txt"), str(tmp_path / "breached.table")
    write_list(tmp_path / "breached.txt", 100)
    columns = ["--delimiter", ":", "--columns", "hash,count", "--key", "hash", "--value", "count"]
    assert main(["table", "build", source, *columns, "-o", table]) == 0
    capsys.readouterr()
    assert main(["table", "get", table, prefix_of("password"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["values"]
    assert int(found["value"]) == find_in_list(tmp_path / "breached.txt", "password")


@pytest.mark.slow
def test_a_list_of_a_million(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--breached", "--device", "cpu", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["entries"] == 1_000_000
    assert data["table_bytes"] < 40e6
