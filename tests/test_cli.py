"""The command line: the demo, the doctor, exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import morphogen
import reference
from morphogen import PageMatrix, cli, demo, doctor, dpf, instruction_set
from morphogen.cli import main
from morphogen.engine.cpu import CpuEngine

TEXT = "\n".join(f"line {number} of a file" for number in range(3000)).encode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT)
    return path


def page_of(data: bytes, index: int, page_size: int) -> bytes:
    return data[index * page_size : (index + 1) * page_size].ljust(page_size, b"\0")


def run_json(capsys, *arguments: object) -> dict:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


class FlippingEngine(CpuEngine):
    """Answers with one wrong bit."""

    def answer(self, queries, **options):
        answer = super().answer(queries, **options)
        answer.pages[0, 0, 0] ^= 1
        return answer


# --- demo


@pytest.mark.parametrize("page_size", [1, 7, 64, 1000, 4096, len(TEXT), len(TEXT) + 1])
def test_demo_fetches_what_the_file_has(file, page_size):
    result = demo.run_demo(file, page_size=page_size)
    assert result.num_pages == -(-len(TEXT) // page_size)
    assert np.shape(result.rows) == (8, 3)
    assert {0, result.num_pages - 1} <= {index for row in result.rows for index in row}
    for row, pages in zip(result.rows, result.pages, strict=True):
        for index, page in zip(row, pages, strict=True):
            assert page.tobytes() == page_of(TEXT, index, page_size)
    assert result.differing == ()


def test_demo_json(file, capsys):
    data = run_json(capsys, "demo", file, "--page-size", 100)
    num_pages = -(-len(TEXT) // 100)
    assert data["file"] == str(file)
    assert data["file_bytes"] == len(TEXT)
    assert (data["num_pages"], data["page_size"]) == (num_pages, 100)
    assert data["device"] == "cpu"
    assert data["identical"] is True
    assert data["differing"] == []
    assert [entry["micro_batch_sizes"] for entry in data["strategies"]] == [[1] * 8, [2] * 4, [8]]
    assert data["strategies"][0]["speedup"] == 1
    assert all(entry["median_ms_per_server"] > 0 for entry in data["strategies"])
    sent, received = 24 * dpf.key_size(num_pages), 24 * 100
    assert data["bytes"] == {
        "sent_per_server": sent,
        "received_per_server": received,
        "sent": 2 * sent,
        "received": 2 * received,
        "whole_table": num_pages * 100,
    }
    indices = [index for row in data["queries"] for index in row]
    assert [entry["page"] for entry in data["fetched"]] == indices
    for entry in data["fetched"]:
        page = page_of(TEXT, entry["page"], 100)
        assert entry["sha256"] == hashlib.sha256(page).hexdigest()
    assert [entry["server"] for entry in data["seen"]] == [0, 1]


def test_demo_without_a_file(capsys):
    assert main(["demo"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    path = demo.default_file()
    assert path.stat().st_size > 100_000
    assert str(path) in output.out
    for words in (
        "single-query loop",
        "chunks of at most 2",
        "engine's own width",
        "8x1",
        "4x2",
        "to download the whole table instead",
        "do not collude",
        "Privacy is computational",
        "All 24 pages equal the file byte for byte",
    ):
        assert words in output.out
    assert "…" not in output.out, "no cell is cut short"


@pytest.mark.parametrize(
    ("fetch", "rows"),
    [
        ("5", [[5, 5, 5]]),
        ("0,7", [[0, 7, 7]]),
        ("3,2,1", [[3, 2, 1]]),
        ("0,1,2,3", [[0, 1, 2], [3, 3, 3]]),
        ("1,1,1,1,1", [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_demo_fetch(file, capsys, fetch, rows):
    data = run_json(capsys, "demo", file, "--fetch", fetch, "--page-size", 512)
    assert data["queries"] == rows
    assert data["identical"] is True


def test_demo_shows_words_of_the_page(file, capsys):
    assert main(["demo", str(file), "--fetch", "1", "--page-size", "1000"]) == 0
    words = TEXT[1000:2000].decode().split("\n")[0]
    assert f"Page 1 begins: {words}\n" in capsys.readouterr().out


def test_demo_of_one_byte(tmp_path, capsys):
    path = tmp_path / "byte"
    path.write_bytes(b"x")
    assert main(["demo", str(path)]) == 0
    assert "Page 0 begins: x\n" in capsys.readouterr().out


def test_demo_prints_no_control_characters(tmp_path, capsys):
    path = tmp_path / "[bold]name"
    path.write_bytes(b"\x1b[2J[red]boo[/red]")
    assert main(["demo", str(path)]) == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert "Page 0 begins: 1b 5b 32 4a" in output
    assert "[bold]name" in output


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (b"\n  \n a\tb  c \nd", "a b c"),
        ("é".encode()[1:] + "é at last".encode(), "é at last"),
        (b"x" * 100, "x" * 72 + "..."),
        (b"\0\0\0\0", "00 00 00 00"),
        (bytes(range(128, 160)), "80 81 82 83 84 85 86 87 88 89 8a 8b 8c 8d 8e 8f"),
    ],
)
def test_first_words(page, words):
    assert demo.first_words(np.frombuffer(page, dtype=np.uint8)) == words


def test_demo_notices_a_wrong_page(file, capsys, monkeypatch):
    # One server lies. Two that flipped the same bit would cancel each other.
    engines = iter([FlippingEngine, CpuEngine] * 2)
    monkeypatch.setattr(demo, "open_engine", lambda pages: next(engines)(pages))
    assert main(["demo", str(file), "--fetch", "2,9"]) == 1
    output = capsys.readouterr().out
    assert "WRONG  page 2, single-query loop" in output
    assert "differ from the file" in output
    assert "equal the file" not in output
    assert main(["demo", str(file), "--fetch", "2,9", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["identical"] is False
    assert {entry["page"] for entry in data["differing"]} == {2}
    assert len(data["differing"]) == 3


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_demo_shows_no_more_of_the_keys(file, capsys, monkeypatch, json_option):
    pairs = []
    gen = dpf.gen

    def recording_gen(*arguments, **options):
        pairs.append(gen(*arguments, **options))
        return pairs[-1]

    monkeypatch.setattr(dpf, "gen", recording_gen)
    assert main(["demo", str(file), "--page-size", "10", *json_option]) == 0
    digits = re.sub(r"\s", "", capsys.readouterr().out)
    assert len(pairs) == 24
    for key in pairs[0]:
        assert key[:8].hex() in digits
        assert key[32:48].hex() in digits
    for number, pair in enumerate(pairs):
        for key in pair:
            for offset in range(16, len(key), 8):
                shown = number == 0 and 32 <= offset < 48
                assert (key[offset : offset + 8].hex() in digits) == shown, (number, offset)


# --- doctor


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert "no GPU engine" in output
    assert "instruction set" in output
    for name in instruction_set.supported():
        assert re.search(rf"self test, {name} +passed", output)


def test_doctor_json(capsys):
    data = run_json(capsys, "doctor")
    with CpuEngine(PageMatrix(np.zeros((1, 1), dtype=np.uint8))) as engine:
        assert data["instruction_set"] == engine.instruction_set
        assert data["threads"] == engine.threads
    assert data["ok"] is True
    assert data["device"] == "cpu"
    assert data["gpu_engine"] is False
    assert data["morphogen"] == morphogen.__version__
    assert data["numpy"] == np.__version__
    assert data["compiled"] == list(instruction_set.compiled())
    assert data["supported"] == list(instruction_set.supported())
    assert data["cores"] == os.cpu_count()
    assert data["checks"] == [
        {"instruction_set": name, "fault": ""} for name in instruction_set.supported()
    ]


def test_doctor_knows_the_right_answers():
    keys = reference.gen(700, 1025, bytes(range(0x11, 0x41)))
    bits = tuple(hashlib.sha256(reference.eval_full(key, 1025)).hexdigest() for key in keys)
    assert bits == doctor._BITS_SHA256
    pages = [index.to_bytes(4, "little") for index in range(1025)]
    assert tuple(reference.answer(pages, key).hex() for key in keys) == doctor._ANSWERS


@pytest.mark.parametrize(
    ("name", "wrong", "fault"),
    [
        ("_BITS_SHA256", ("", ""), "selection bits differ"),
        ("_ANSWERS", ("82040001", ""), "party 0 answered 82040000, not 82040001"),
        ("_known_answer_fault", lambda name: 1 / 0, "ZeroDivisionError"),
        ("reconstruct", lambda *answers: np.zeros((4, 3, 331), np.uint8), "gave wrong pages"),
    ],
)
def test_doctor_notices(capsys, monkeypatch, name, wrong, fault):
    monkeypatch.setattr(doctor, name, wrong)
    assert main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert "FAILED" in output
    assert fault in " ".join(output.split())
    assert "Do not use it" in output
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


# --- usage


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "missing.txt"], "missing.txt: No such file or directory"),
        (["demo", "."], ".: Is a directory"),
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
        (["demo", "text.txt", "--page-size", "big"], "invalid int value: 'big'"),
        (["demo", "text.txt", "--page-size", "9" * 30], "morphogen: "),
        (["demo", "a", "b"], "unrecognized arguments: b"),
        (["doctor", "now"], "unrecognized arguments: now"),
        (["fly"], "invalid choice: 'fly'"),
        ([], "required: command"),
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


@pytest.mark.parametrize("command", [[], ["demo"], ["bench"], ["doctor"]])
def test_help_documents_the_exit_codes(command, capsys):
    assert main([*command, "--help"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^  1    an answer differed", output, re.MULTILINE)
    assert re.search(r"^  2    wrong usage", output, re.MULTILINE)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"morphogen {morphogen.__version__}\n"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "out of memory"),
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


def test_the_demo_tells_how_far_it_is(file):
    calls = []
    demo.run_demo(file, progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == list(range(1, len(calls) + 1))
    assert all(done <= total for done, total in calls)
    assert calls[-1][0] >= 12  # a warm-up and three rounds, three ways


def test_progress_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(cli, "_SILENT_SECONDS", 0.0)
    bar = cli._Bar()
    bar.update(1, 4)
    bar.update(4, 4)
    bar.close()
    assert "measuring" in capsys.readouterr().err


def test_no_progress_bar_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_SILENT_SECONDS", 0.0)
    bar = cli._Bar()
    bar.update(1, 4)
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
