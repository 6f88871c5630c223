"""``morphogen table diff | apply``, and what ``info`` says of a delta."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ended_command import PATIENCE, end_command
from morphogen.cli import main
from morphogen.cli.output import FAILED, OK, USAGE
from morphogen.epochs.delta import read_delta_header
from morphogen.keyword.file import read_header
from morphogen.keyword.sealing import seal_file
from naive import random_pages
from sealed_files import layout_of, write_sealed

CONTENTS = random_pages(200, 86)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of words-6.table and words-7.table, keyword tables of 200 pages of which two differ."""
    after = CONTENTS.copy()
    after[[3, 150]] ^= 1
    write_sealed(tmp_path / "words-6.table", CONTENTS, 2, layout_of(CONTENTS, 2, 30))
    write_sealed(tmp_path / "words-7.table", after, 2, layout_of(CONTENTS, 2, 31))
    monkeypatch.chdir(tmp_path)
    return tmp_path


OLD, NEW = "words-6.table", "words-7.table"


def test_from_two_tables_to_a_delta_and_back(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", "diff", OLD, NEW, "-o", "7.delta", "--json"]) == OK
    said = json.loads(capsys.readouterr().out)
    roots = [(read_header(folder / name).root or b"").hex() for name in (OLD, NEW)]
    facts = {
        "delta": "7.delta",
        "from_epoch": 6,
        "to_epoch": 7,
        "pages": 200,
        "page_size": 150,
        "proof_levels": 2,
        "entries": 31,
        "pages_touched": 2,
        "bytes": 8192 + 2 * 86,
    }
    ends = {"root_before": roots[0], "root_after": roots[1]}
    table_bytes = (folder / NEW).stat().st_size
    assert said == {**facts, "table_bytes": table_bytes, "smaller": True, **ends}
    assert (folder / "7.delta").stat().st_size == said["bytes"]

    assert main(["table", "info", "7.delta", "--json"]) == OK
    assert json.loads(capsys.readouterr().out) == {**facts, **ends}

    assert main(["table", "apply", OLD, "7.delta", "-o", "result", "--json"]) == OK
    said = json.loads(capsys.readouterr().out)
    assert (folder / "result").read_bytes() == (folder / NEW).read_bytes()
    assert (said["table"], said["root"], said["entries"]) == ("result", roots[1], 31)
    assert (said["from_epoch"], said["to_epoch"], said["pages_touched"]) == (6, 7, 2)


def test_people_read_what_changes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "diff", OLD, NEW, "-o", "7.delta"]) == OK
    shown = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    header = read_delta_header(folder / "7.delta")
    assert lines[:3] == [
        "Delta 7.delta",
        f"From root {header.root_before.hex()}",
        f"To root {header.root_after.hex()}",
    ]
    for line in ("from epoch 6", "to epoch 7", "contents that change 2", "delta 8,364 bytes"):
        assert line in lines
    assert main(["table", "info", "7.delta"]) == OK
    assert capsys.readouterr().out.splitlines()[:3] == shown.splitlines()[:3]
    assert main(["table", "apply", OLD, "7.delta", "-o", "result"]) == OK
    shown = capsys.readouterr().out
    assert f"Root  {header.root_after.hex()}\n" in shown
    assert shown.endswith("Epoch 7, of epoch 6 by 2 contents that change\n")


def test_epochs_may_be_given(folder: Path) -> None:
    command = ["table", "diff", OLD, NEW, "-o", "a", "--epoch", "20", "--from-epoch", "11"]
    assert main(command) == OK
    header = read_delta_header(folder / "a")
    assert (header.from_epoch, header.to_epoch) == (11, 20)


def test_a_delta_that_is_no_smaller_than_the_table_is_written_and_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sealed(folder / "few-1", CONTENTS[:11], 2)
    write_sealed(folder / "few-2", CONTENTS[:11] ^ np.uint8(1), 2)
    assert main(["table", "diff", "few-1", "few-2", "-o", "2.delta", "--json"]) == FAILED
    output = capsys.readouterr()
    assert json.loads(output.out)["smaller"] is False
    assert output.err == (
        "morphogen: 2.delta was written, but is no smaller than few-2, 9,138 bytes against 5,842: "
        "send the table\n"
    )
    assert main(["table", "apply", "few-1", "2.delta", "-o", "result"]) == OK
    assert (folder / "result").read_bytes() == (folder / "few-2").read_bytes()


@pytest.mark.parametrize(("old", "delta"), [(OLD, "-"), ("-", "7.delta")])
def test_a_file_comes_through_a_pipe(folder: Path, old: str, delta: str) -> None:
    assert main(["table", "diff", OLD, NEW, "-o", "7.delta"]) == OK
    piped = (folder / (OLD if old == "-" else "7.delta")).read_bytes()
    command = [sys.executable, "-m", "morphogen", "table", "apply", old, delta, "-o", "result"]
    done = subprocess.run(command, input=piped, capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (OK, b"")
    assert (folder / "result").read_bytes() == (folder / NEW).read_bytes()


def test_what_is_refused_and_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "plain").write_bytes(bytes(5000))
    seal_file(folder / "plain", folder / "sealed-8.table", 150, 2)
    assert main(["table", "diff", OLD, NEW, "-o", "7.delta"]) == OK
    (folder / "cut").write_bytes((folder / "7.delta").read_bytes()[:-1])
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for arguments, message in (
        (["diff", OLD, NEW, "-o", "7.delta"], "7.delta is there already: --force replaces it"),
        (["diff", OLD, NEW, "-o", OLD, "--force"], f"{OLD} is the file that is read"),
        (["diff", OLD, NEW, "-o", NEW, "--force"], f"{NEW} is the file that is read"),
        (["diff", OLD, NEW, "-o", "-"], "table diff writes a file, not the standard output: give"),
        (["diff", OLD, NEW, "-o", "none/x"], "there is no folder none"),
        (["diff", NEW, OLD, "-o", "x"], "to_epoch must be above from_epoch, 7, not 6"),
        (["diff", OLD, "plain", "-o", "x"], "plain has no number at the end of its name: give"),
        (["diff", OLD, "plain", "-o", "x", "--epoch", "7"], "plain is no table: morphogen table "),
        (["diff", "plain", NEW, "-o", "x"], "plain is no table: morphogen table seal makes one"),
        (
            ["diff", OLD, "sealed-8.table", "-o", "x"],
            "there is no delta between words-6.table, 200",
        ),
        (["diff", "none", NEW, "-o", "x"], "none: No such file or directory"),
        (["apply", OLD, "7.delta", "-o", NEW], f"{NEW} is there already: --force replaces it"),
        (["apply", OLD, "7.delta", "-o", OLD, "--force"], f"{OLD} is the file that is read"),
        (["apply", OLD, "7.delta", "-o", "7.delta", "--force"], "7.delta is the file that is"),
        (["apply", OLD, "7.delta", "-o", "-"], "table apply writes a file, not the standard"),
        (["apply", "-", "-", "-o", "x"], "OLD and DELTA cannot both come through the standard"),
        (["apply", NEW, "7.delta", "-o", "x"], "7.delta is for the table with the root "),
        (["apply", "sealed-8.table", "7.delta", "-o", "x"], "7.delta is for a table of 200 pages"),
        (["apply", "plain", "7.delta", "-o", "x"], "plain is no table: morphogen table seal makes"),
        (["apply", OLD, "cut", "-o", "x"], "cut is truncated: 8363 bytes instead of 8364"),
        (["apply", OLD, NEW, "-o", "x"], f"{NEW} is not a delta: it begins otherwise"),
        (["info", "cut"], "cut is truncated: 8363 bytes instead of 8364"),
    ):
        assert main(["table", *arguments]) == USAGE
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("morphogen: ")
        assert message in output.err
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_force_replaces_an_output(folder: Path) -> None:
    (folder / "7.delta").write_bytes(b"old")
    assert main(["table", "diff", OLD, NEW, "-o", "7.delta", "--force"]) == OK
    assert main(["table", "apply", OLD, "7.delta", "-o", NEW, "--force"]) == OK
    assert main(["table", "verify", NEW]) == OK


ENDED = """
import sys, threading
import morphogen.cli.progress_bar as progress_bar
from morphogen.cli import main

def stop(self, done, total, stage):
    if stage == "writing" and done:
        print("writing", flush=True)
        threading.Event().wait()

progress_bar.ProgressBar.update = stop
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("action", ["diff", "apply"])
def test_a_signal_leaves_the_files_as_they_were(
    folder: Path, action: str, number: signal.Signals
) -> None:
    assert main(["table", "diff", OLD, NEW, "-o", "7.delta"]) == OK
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    command = {
        "diff": ["table", "diff", OLD, NEW, "-o", "7.delta", "--force"],
        "apply": ["table", "apply", OLD, "7.delta", "-o", NEW, "--force"],
    }[action]
    end_command(ENDED, command, number, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
