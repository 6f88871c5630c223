"""Standard streams that are missing or closed, that lose their reader, or that know few characters.

The descriptors of a process are what the tests change, so that most of them start one.
"""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import morphogen.bench.plot as plot
import morphogen.cli.diagnosis as diagnosis
from bench_runs import SMALL
from fake_server import keyword_table, two_servers
from morphogen.cli import main
from morphogen.cli.progress_bar import ProgressBar
from morphogen.service.logs import JsonFormatter

pytestmark = pytest.mark.slow  # processes of their own, or crowds of connections

ODD = b"out\xe9"  # the name of a file that is no UTF-8
SPELLED = "out\\udce9"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pages").write_bytes(bytes(range(256)) * 64)
    (tmp_path / "rows.csv").write_text("key,v\na,1\n")
    return tmp_path


def run(
    *arguments: str | bytes, redirect: str = "", encoding: str = "utf-8:strict", stdout: int = -1
) -> subprocess.CompletedProcess[bytes]:
    """A real command, with redirections in the shell's words."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-m", "morphogen", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=60,
    )


# A stream that is missing


@pytest.mark.parametrize("redirect", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["doctor", "--json"], 0),
        (["demo", "pages", "--json"], 0),
        (["table", "build", "rows.csv", "--key", "key", "-o", "table"], 0),
        (["demo", "missing"], 2),
        (["--help"], 0),
    ],
)
def test_a_missing_stream_changes_no_exit_code(
    arguments: list[str], code: int, redirect: str
) -> None:
    done = run(*arguments, redirect=redirect)
    assert done.returncode == code
    if "2>&-" in redirect:
        assert not done.stderr
        assert b"morphogen: " not in done.stdout, "a message must not land in the result"
    else:
        assert done.stderr.count(b"\n") == (1 if code else 0)
    if redirect == ">&-":
        assert not done.stdout
    if arguments[0] == "demo" and redirect == "2>&-" and not code:
        assert json.loads(done.stdout)["identical"]


@pytest.mark.parametrize("state", ["missing", "closed"])
@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_a_stream_that_python_lacks_is_no_terminal(
    name: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = None
    if state == "closed":
        stream = io.TextIOWrapper(io.BytesIO())
        stream.close()
    monkeypatch.setattr(sys, name, stream)
    assert main(["demo", "pages"]) == 0
    assert main(["demo", "pages", "--json"]) == 0
    assert main(["demo", "missing"]) == 2


def test_a_file_does_not_get_the_descriptor_of_a_missing_stream(folder: Path) -> None:
    script = (
        "import os, sys; from morphogen.cli import main; main(['--version']);"
        "file = open('file', 'w'); file.write(str(file.fileno())); file.close();"
        "os.write(2, b'a message of some library')"
    )
    subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script], check=True
    )
    assert int((folder / "file").read_text()) > 2


def test_bytes_for_a_missing_standard_output_are_refused_before_any_message() -> None:
    servers = ("--server", "https://one.example", "--server", "https://two.example")
    done = run("get", "1", "-o", "-", *servers, redirect=">&-")
    assert (done.returncode, done.stderr) == (2, b"morphogen: the standard output is closed\n")


# A stream that breaks


@pytest.fixture
def broken() -> Iterator[int]:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    "arguments",
    [["doctor", "--json"], ["--help"], ["table", "build", "--help"], ["--version"]],
    ids=" ".join,
)
def test_a_reader_that_went_away_has_a_code_of_its_own(arguments: list[str], broken: int) -> None:
    done = run(*arguments, stdout=broken)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "code"), [(["doctor", "--json"], 0), (["demo", "missing"], 2), (["fly"], 2)]
)
def test_without_a_reader_of_messages_the_code_stays(
    arguments: list[str], code: int, broken: int
) -> None:
    done = run(*arguments, redirect="2>&1 >file", stdout=broken)
    assert done.returncode == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_that_does_not_block_is_waited_for(unbuffered: str) -> None:
    program = "import sys, morphogen.cli.streams as s; s.prepare(); s.write('x' * 1_000_000)"
    read, write = os.pipe()
    os.set_blocking(write, False)
    with (
        os.fdopen(read, "rb") as reader,
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=write,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        ) as process,
    ):
        os.close(write)
        assert reader.read() == b"x" * 1_000_000
        assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 0


def test_a_full_disk_is_said_to_be_that_of_the_standard_output() -> None:
    for arguments in (["demo", "pages"], ["--help"], ["doctor", "--json"]):
        done = run(*arguments, redirect=">/dev/full")
        message = b"morphogen: standard output: No space left on device\n"
        assert (done.returncode, done.stderr) == (2, message)
    assert run("fly", redirect="2>/dev/full").returncode == 2


def test_a_server_whose_log_nobody_reads_serves_on_and_ends_well() -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "morphogen", "serve", "pages", "--party", "0", "--port", "0"],
        stderr=subprocess.PIPE,
    )
    assert server.stderr is not None
    started = json.loads(server.stderr.readline())
    server.stderr.close()
    assert httpx.get(f"{started['url']}/health", trust_env=False).status_code == 200
    server.terminate()
    assert server.wait(60) == 0


@contextmanager
def broken_stdout(broken: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Break the standard output of this process, as Python sees it."""
    with monkeypatch.context() as patched, os.fdopen(os.dup(broken), "w") as stream:
        patched.setattr(sys, "stdout", stream)
        yield


def test_a_failed_check_is_told_although_nobody_reads(
    broken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "_known_answer_fault", lambda *_: "wrong")
    with broken_stdout(broken, monkeypatch):
        assert main(["doctor"]) == 1


def test_a_plot_is_drawn_although_nobody_reads(
    broken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(plot, "check_plot", lambda path: None)
    monkeypatch.setattr(plot, "draw_benchmark", lambda result, path: drawn.append(path))
    with broken_stdout(broken, monkeypatch):
        assert main([*SMALL, "--batch-sizes", "1", "--plot", "a.png"]) == 141
    assert drawn == [Path("a.png")]


def test_work_goes_on_where_the_terminal_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        gone = False

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            if self.gone:
                raise OSError(5, "Input/output error")
            return super().write(text)

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("morphogen.cli.progress_bar.SILENT_SECONDS", 0.0)
    bar = ProgressBar()
    bar.update(1, 4, "measuring")
    terminal.gone = True
    bar.update(2, 4, "measuring")
    bar.update(3, 4, "measuring")
    bar.close()


# Text that a stream does not know


def lines(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.stderr == b""
    return done.stdout.decode("utf-8")


def in_json(done: subprocess.CompletedProcess[bytes], *path: str) -> str:
    """A string of the result, which a strict reader would take."""
    found = json.loads(lines(done))
    for name in path:
        found = found[name]
    assert isinstance(found, str)
    found.encode("utf-8")
    return found


def test_a_table_with_an_odd_name_is_told_of() -> None:
    arguments = ("table", "build", "rows.csv", "--key", "key", "--force", "-o", ODD)
    done = run(*arguments)
    assert (done.returncode, SPELLED in lines(done)) == (0, True)
    done = run(*arguments, "--json")
    assert (done.returncode, in_json(done, "table")) == (0, SPELLED)


def test_pages_in_a_file_with_an_odd_name_are_shown(folder: Path) -> None:
    (folder / os.fsdecode(ODD)).write_bytes(bytes(9999))
    done = run("demo", ODD)
    assert (done.returncode, SPELLED in lines(done)) == (0, True)
    done = run("demo", ODD, "--json")
    assert (done.returncode, in_json(done, "file")) == (0, SPELLED)


def test_pages_in_a_file_with_an_odd_name_are_measured(folder: Path) -> None:
    (folder / os.fsdecode(ODD)).write_bytes(bytes(9999))
    arguments = ("bench", "--matrix-file", ODD, "--batch-sizes", "1", "--iterations", "2")
    done = run(*arguments, "--csv", b"csv" + ODD)
    assert (done.returncode, SPELLED in lines(done)) == (0, True)
    rows = (folder / os.fsdecode(b"csv" + ODD)).read_text(encoding="utf-8")
    assert f"# table: {SPELLED}\n" in rows
    done = run(*arguments, "--json")
    assert (done.returncode, in_json(done, "config", "matrix_file")) == (0, SPELLED)


def test_an_odd_key_is_looked_up_and_shown() -> None:
    table, layout, _ = keyword_table()
    with two_servers(table, layout=layout) as servers:
        urls = [part for server in servers for part in ("--server", server.url)]
        done = run("get", *urls, "--lookup", ODD)
        assert "out\\xe9" in lines(done)  # a key is no name of a file: its bytes are shown
        done = run("get", *urls, "--lookup", ODD, "--json")
        assert json.loads(lines(done))["values"][0]["key"] == SPELLED


def test_characters_that_a_stream_lacks_do_not_end_the_command(folder: Path) -> None:
    (folder / "größe").write_bytes("größe\n".encode() * 2000)
    done = run("demo", "größe".encode(), encoding="ascii:strict")
    assert (done.returncode, "gr\\xf6\\xdfe" in lines(done)) == (0, True)


@pytest.mark.parametrize("arguments", [("demo", ODD), ("fly", ODD), (ODD,)])
def test_a_message_about_an_odd_name_is_one_line(arguments: tuple[str | bytes, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.decode("utf-8").count("\n") == 1


def test_a_log_with_an_odd_name_is_json_for_every_reader() -> None:
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, os.fsdecode(ODD), (), None)
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == SPELLED
