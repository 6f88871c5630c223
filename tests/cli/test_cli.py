"""The command line: usage, errors, exit codes, a real process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import morphogen
import morphogen.cli.progress_bar as progress_bar
import morphogen.demo as demo
from morphogen.cli import main
from morphogen.cli.progress_bar import ProgressBar


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"line {number} of a file" for number in range(3000)))
    return path


# --- usage


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "missing.txt"], "missing.txt: No such file or directory"),
        (["demo", "."], ".: Is a directory"),
        (["demo", ""], "argument FILE: must name a file, not '' (see morphogen demo --help)"),
        (["demo", "empty"], "a table needs at least one byte: empty has 0"),
        (
            ["demo", "text.txt", "--fetch", "0,99"],
            "page 99 is not in the file: its pages are 0..14",
        ),
        (["demo", "text.txt", "--fetch", "15"], "page 15 is not in the file: its pages are 0..14"),
        (["demo", "text.txt", "--fetch=-1"], "page -1 is not in the file: its pages are 0..14"),
        (["demo", "text.txt", "--fetch", "9" * 30], "is not in the file"),
        (["demo", "text.txt", "--fetch", "1,,2"], "with commas between, not '1,,2'"),
        (["demo", "text.txt", "--fetch", "1;2"], "with commas between, not '1;2'"),
        (["demo", "text.txt", "--fetch", ""], "with commas between, not ''"),
        (["demo", "text.txt", "--page-size", "0"], "page_size must be in 1..2**40, not 0"),
        (["demo", "text.txt", "--page-size", "big"], "such as 4096, 4k or 2G, not 'big'"),
        (["demo", "text.txt", "--page-size", "9" * 30], "morphogen: "),
        (["demo", "text.txt", "--device", "tpu"], "'cuda:0,cuda:2', not 'tpu'"),
        (["demo", "text.txt", "--device", "cuda:99"], "cuda:99 "),
        (["demo", "a", "b"], "unrecognized arguments: b"),
        (["doctor", "now"], "unrecognized arguments: now"),
        (["serve", "", "--party", "0", "--port", "0"], "argument PAGES: must name a file, not ''"),
        (["table", "build", "text.txt", "--key", "k", "-o", ""], "--output: must name a file"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_bad_input(arguments, words, file, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").touch()
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert output.err.startswith("morphogen: ")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        *([], ["demo"], ["bench"], ["serve"], ["get"], ["doctor"], ["table"]),
        *(["table", action] for action in ("build", "info", "verify", "get")),
    ],
)
def test_help_documents_the_exit_codes(command, capsys):
    assert main([*command, "--help"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^  1    an answer differed", output, re.MULTILINE)
    assert re.search(r"^  2    wrong usage", output, re.MULTILINE)
    assert re.search(r"^  3    a key is not in the table", output, re.MULTILINE)


@pytest.mark.parametrize("command", [[], ["table"]])
def test_a_command_without_arguments_prints_its_help(command, capsys):
    assert main(command) == 0
    bare = capsys.readouterr()
    assert main([*command, "--help"]) == 0
    assert bare == capsys.readouterr()
    assert bare.out.startswith("usage: morphogen")


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"morphogen {morphogen.__version__}\n"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "out of memory"),
        (
            RuntimeError("can't start new thread"),
            2,
            "the system starts no more threads: memory or threads are at their limit",
        ),
        (OverflowError("too large"), 2, "too large"),
        (morphogen.DeviceError("it broke"), 2, "it broke"),
        (OSError("odd"), 2, "odd"),
        (
            PermissionError(13, "Permission denied", "secret.txt"),
            2,
            "secret.txt: Permission denied",
        ),
    ],
)
def test_errors_become_exit_codes(monkeypatch, capsys, error, code, words):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(demo, "run_demo", fail)
    assert main(["demo"]) == code
    assert capsys.readouterr().err == f"morphogen: {words}\n"


def test_a_mistake_in_the_program_is_not_hidden(monkeypatch):
    monkeypatch.setattr(demo, "run_demo", lambda *arguments, **options: None)
    with pytest.raises(AttributeError):
        main(["demo"])


def test_progress_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress_bar, "SILENT_SECONDS", 0.0)
    bar = ProgressBar()
    bar.update(1, 4, "measuring")
    bar.update(4, 4, "measuring")
    bar.close()
    assert "measuring" in capsys.readouterr().err


def test_the_bar_says_what_it_is_for(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress_bar, "SILENT_SECONDS", 0.0)
    bar = ProgressBar()
    bar.update(1 << 30, 2 << 30, "uploading")
    assert "uploading" in capsys.readouterr().err
    bar.update(1, 4, "measuring")
    bar.close()
    output = capsys.readouterr().err
    assert all(words in output for words in ("measuring", "25%", " left"))


def test_the_bar_is_drawn_a_few_times_a_second(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress_bar, "SILENT_SECONDS", 0.0)
    now = iter([0.0, *(number / 1000 for number in range(5000))])
    monkeypatch.setattr(progress_bar, "monotonic", lambda: next(now))
    drawn = []
    bar = ProgressBar()
    monkeypatch.setattr(bar, "_draw", lambda *call: drawn.append(call))
    for done in range(1001):
        bar.update(done, 1000, "reading")
    bar.update(0, 1000, "placing")
    assert 10 <= len(drawn) <= 15
    assert drawn[-2:] == [(1000, 1000, "reading"), (0, 1000, "placing")]


def test_no_progress_bar_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress_bar, "SILENT_SECONDS", 0.0)
    bar = ProgressBar()
    bar.update(1, 4, "measuring")
    bar.close()
    assert capsys.readouterr().err == ""


# --- a real process


def run_process(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, **options
    )


def test_module_as_a_program(file):
    done = run_process("-m", "morphogen", "demo", str(file), "--fetch", "0,3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["queries"] == [[0, 3, 3]]
    done = run_process("-m", "morphogen", "demo", "missing")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "morphogen: missing: No such file or directory\n"


def test_a_closed_pipe_is_no_crash(file):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "morphogen", "demo", str(file)],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_command_line_loads_little():
    done = run_process(
        "-c",
        "import sys, morphogen.cli; print(sorted({'rich', 'numpy'} & set(sys.modules)))",
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_parser_loads_nothing_that_a_command_needs() -> None:
    script = (
        "import sys; from morphogen import cli; cli._parser();"
        "print([name for name in ('numpy', 'rich', 'h11', 'msgspec', 'uvicorn') "
        "if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "[]"


def test_a_library_that_cannot_be_loaded_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def load(*_: object) -> None:
        raise ImportError("_sqlite3.so: failed to map segment from shared object")

    monkeypatch.setattr("morphogen.cli.doctor.run", load)
    assert main(["doctor"]) == 2
    message = "morphogen: _sqlite3.so: failed to map segment from shared object\n"
    assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        (["serve", "FILE", "--party", "0", "--port", "0"], "uvicorn", "server"),
        (["demo", "FILE", "--lookups"], "uvicorn", "client,server"),
        (["demo", "FILE", "--lookups"], "h11", "client,server"),
    ],
)
def test_without_its_extra_a_command_names_it(
    command: list[str], missing: str, extra: str, tmp_path: Path
) -> None:
    file = tmp_path / "pages.bin"
    file.write_bytes(bytes(40_000))
    arguments = [str(file) if part == "FILE" else part for part in command]
    script = f"""
import sys
class Missing:
    def find_spec(name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Missing)
from morphogen.cli import main
sys.exit(main({arguments!r}))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (
        2,
        "",
        f"morphogen: {missing} is not installed: pip install 'morphogen[{extra}]'\n",
    )
