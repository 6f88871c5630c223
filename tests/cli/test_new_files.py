"""Without --force no command replaces a file: not even one that came while the command worked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from morphogen.cli import main
from morphogen.cli.output import OK, USAGE

OLD, NEW, ROWS = "words-6.table", "words-7.table", ["--key", "key", "--value", "value"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"key {number},value {number}\n" for number in range(1000))
    for name, last in (("old.csv", "one"), ("new.csv", "two"), ("long.csv", "x" * 5000)):
        Path(name).write_text(f"key,value\n{rows}last,{last}\n")
    for command in (
        ["build", "old.csv", *ROWS, "-o", OLD],
        ["update", OLD, "new.csv", *ROWS, "-o", NEW],
        ["diff", OLD, NEW, "-o", "7.delta"],
        ["keygen", "-o", "owner.key"],
    ):
        assert main(["table", *command]) == OK
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["build", "new.csv", *ROWS, "-o", "taken"],
        ["seal", "old.csv", "-o", "taken"],
        ["diff", OLD, NEW, "-o", "taken"],
        ["apply", OLD, "7.delta", "-o", "taken"],
        ["update", OLD, "new.csv", *ROWS, "-o", "taken"],
        ["update", OLD, "long.csv", *ROWS, "-o", "taken"],  # builds the table anew
        ["update", OLD, "new.csv", *ROWS, "-o", "8.table", "--delta", "taken"],
        ["keygen", "-o", "taken"],
        ["sign", NEW, "--key", "owner.key", "-o", "taken"],
    ],
    ids=lambda command: f"{command[0]} {command[2]}",
)
def test_a_file_that_came_meanwhile_is_not_replaced(
    command: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("taken").write_bytes(b"another's")
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "lexists", lambda path: False)  # as it was when the command began
        assert main(["table", *command]) == USAGE
    assert capsys.readouterr().err.startswith("morphogen: taken: File exists\n")
    assert Path("taken").read_bytes() == b"another's"
    assert not list(folder.glob(".*"))
    assert main(["table", *command, "--force"]) == OK
    assert Path("taken").read_bytes() != b"another's"
