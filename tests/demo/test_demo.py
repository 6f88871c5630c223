"""The demo: its pages, its output, and the wrong pages that it notices."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import morphogen.cli.progress_bar as progress_bar
import morphogen.demo as demo
import morphogen.demo.lookup as demo_lookup
from morphogen import dpf
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
    assert main(["demo", *map(str, arguments), "--device", "cpu", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


class FlippingEngine(CpuEngine):
    """Answers with one wrong bit."""

    def answer(self, queries, **options):
        answer = super().answer(queries, **options)
        answer.pages[0, 0, 0] ^= 1
        return answer


@pytest.mark.parametrize("page_size", [1, 7, 64, 1000, 4096, len(TEXT), len(TEXT) + 1])
def test_demo_fetches_what_the_file_has(file, page_size):
    result = demo.run_demo(file, page_size=page_size, device="cpu")
    assert result.num_pages == -(-len(TEXT) // page_size)
    assert np.shape(result.rows) == (8, 3)
    assert {0, result.num_pages - 1} <= {index for row in result.rows for index in row}
    for row, pages in zip(result.rows, result.pages, strict=True):
        for index, page in zip(row, pages, strict=True):
            assert page.tobytes() == page_of(TEXT, index, page_size)
    assert result.differing == ()


@pytest.mark.parametrize("indices", [[1.5], [True], np.array([0.0]), ["1"]])
def test_demo_of_indices_that_are_none(file, indices):
    with pytest.raises(TypeError, match=r"^indices must be a sequence of ints: "):
        demo.run_demo(file, indices=indices)
    with pytest.raises(ValueError, match=rf"^page {2**64} is not in the file"):
        demo.run_demo(file, indices=[2**64, 1])


def test_demo_json(file, capsys):
    data = run_json(capsys, file, "--page-size", 100)
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
    assert main(["demo", "--device", "cpu"]) == 0
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
    data = run_json(capsys, file, "--fetch", fetch, "--page-size", 512)
    assert data["queries"] == rows
    assert data["identical"] is True


def test_demo_shows_words_of_the_page(file, capsys):
    assert main(["demo", str(file), "--fetch", "1", "--page-size", "1000", "--device", "cpu"]) == 0
    words = TEXT[1000:2000].decode().split("\n")[0]
    assert f"Page 1 begins: {words}\n" in capsys.readouterr().out


def test_demo_of_one_byte(tmp_path, capsys):
    path = tmp_path / "byte"
    path.write_bytes(b"x")
    assert main(["demo", str(path), "--device", "cpu"]) == 0
    assert "Page 0 begins: x\n" in capsys.readouterr().out


def test_demo_prints_no_control_characters(tmp_path, capsys):
    path = tmp_path / "[bold]name"
    path.write_bytes(b"\x1b[2J[red]boo[/red]")
    assert main(["demo", str(path), "--device", "cpu"]) == 0
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
    monkeypatch.setattr(demo, "open_engine", lambda pages, device, progress: next(engines)(pages))
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
    pairs: list[tuple[bytes, bytes]] = []
    gen_many = dpf.gen_many

    def recording(*arguments, **options):
        made = gen_many(*arguments, **options)
        pairs.extend(zip(*made, strict=True))
        return made

    monkeypatch.setattr(dpf, "gen_many", recording)
    assert main(["demo", str(file), "--page-size", "10", "--device", "cpu", *json_option]) == 0
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


def test_the_demo_tells_how_far_it_is(file):
    calls = []
    demo.run_demo(file, device="cpu", progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == list(range(1, len(calls) + 1))
    assert all(done <= total for done, total in calls)
    assert calls[-1][0] >= 12  # a warm-up and three rounds, three ways


# On a GPU


def test_demo_on_a_gpu(gpu, file, capsys):
    uploads = []
    result = demo.run_demo(
        file, device="cuda", upload=lambda done, total: uploads.append((done, total))
    )
    assert result.device == "cuda:0"
    assert result.differing == ()
    sizes = [strategy.micro_batch_sizes for strategy in result.strategies]
    assert sizes == [(1,) * 8, (2,) * 4], "the engine's own width is 2"
    assert uploads == [(15 * 4096, 15 * 4096)] * 2, "each server gets the pages"

    assert main(["demo", str(file), "--fetch", "1,2"]) == 0, "auto takes the GPU"
    output = capsys.readouterr().out
    assert "from two servers (cuda:0)" in output
    assert "All 3 pages equal the file byte for byte" in output


def test_demo_shows_the_upload(gpu, file, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress_bar, "SILENT_SECONDS", 0.0)
    assert main(["demo", str(file), "--device", "cuda:0", "--fetch", "1"]) == 0
    assert "uploading" in capsys.readouterr().err


def test_demo_without_room_on_the_gpu(gpu, file, capsys):
    gpu.set(free_memory=30_000)
    assert main(["demo", str(file), "--device", "cuda"]) == 2
    error = capsys.readouterr().err
    assert re.search(r"^morphogen: .*need \d+ bytes .* on cuda:0, and 30000 are free$", error)


@pytest.mark.gpu
def test_demo_on_this_gpu(file, capsys):
    assert main(["demo", str(file), "--device", "cuda"]) == 0
    assert "All 24 pages equal the file byte for byte" in capsys.readouterr().out


def test_the_file_that_does_not_fit_the_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        demo_lookup.write_characters(tmp_path / "full")
    assert caught.value.filename == str(tmp_path / "full")
