"""The pictures of docs/pictures: never stale, legible, and true to what they show."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from naive import random_table
from standin_driver import StandIn

import draw
import morphogen as mg
import screenshots
from morphogen.engine.base import Engine
from pictures import cpu_buckets, dpf_tree, gpu_lanes, gpu_roofline, one_query, sources
from pictures.svg import SMALL, Drawing

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(params=draw.PICTURES)
def committed(request: pytest.FixtureRequest) -> Path:
    return draw.FOLDER / f"{request.param}.svg"


def test_a_committed_picture_is_what_the_code_draws(committed: Path) -> None:
    same = committed.read_text(encoding="utf-8") == draw.PICTURES[committed.stem]()
    assert same, f"{committed.name} is stale: run python tools/draw.py"


def test_the_folder_holds_the_pictures_and_nothing_else() -> None:
    names = {*draw.PICTURES, *(f"screen-{shot.name}" for shot in screenshots.SHOTS)}
    assert {path.name for path in draw.FOLDER.iterdir()} == {f"{name}.svg" for name in names}


def test_every_picture_stands_in_a_page() -> None:
    pages = [*ROOT.glob("docs/*.md"), ROOT / "README.md"]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    shown = set(re.findall(r"!\[[^\]]+\]\((?:docs/)?pictures/([\w-]+)\.svg\)", text))
    assert {path.stem for path in draw.FOLDER.iterdir()} == shown


def test_a_stale_picture_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "FOLDER", tmp_path)
    for name, make in draw.PICTURES.items():
        (tmp_path / f"{name}.svg").write_text(make(), encoding="utf-8")
    assert draw.stale() == []
    (tmp_path / "dpf-tree.svg").write_text("another", encoding="utf-8")
    (tmp_path / "gpu-lanes.svg").unlink()
    assert draw.stale() == ["dpf-tree", "gpu-lanes"]


@dataclass(frozen=True)
class Words:
    """Where words are, by the widths of a wide font."""

    text: str
    left: float
    right: float
    top: float
    bottom: float

    def overlaps(self, other: Words) -> bool:
        across = min(self.right, other.right) - max(self.left, other.left)
        return across > 0 and min(self.bottom, other.bottom) > max(self.top, other.top)


def all_words(svg: str) -> list[Words]:
    found = []
    root = ElementTree.fromstring(svg)
    for element in root.iter(f"{SVG}text"):
        text = element.text or ""
        size = float(element.get("font-size", root.get("font-size", "")))
        assert size >= SMALL, f"{text!r} is too small to read"
        narrow = sum(letter in " .,:;'()|il1tjfr" for letter in text)
        width = size * (0.62 * (len(text) - narrow) + 0.4 * narrow)
        x, y = float(element.get("x", "")), float(element.get("y", ""))
        x -= {"start": 0.0, "middle": width / 2, "end": width}[element.get("text-anchor", "start")]
        found.append(Words(text, x, x + width, y - 0.75 * size, y + 0.2 * size))
    return found


def faults(svg: str) -> list[str]:
    """Words that leave a picture or lie over each other."""
    _, _, width, height = map(float, ElementTree.fromstring(svg).get("viewBox", "").split())
    words = all_words(svg)
    outside = [
        f"{w.text!r} leaves the picture"
        for w in words
        if w.left < 0 or w.right > width or w.top < 0 or w.bottom > height
    ]
    pairs = combinations(words, 2)
    return outside + [f"{a.text!r} lies over {b.text!r}" for a, b in pairs if a.overlaps(b)]


def test_words_keep_apart_and_within_the_picture(committed: Path) -> None:
    assert faults(committed.read_text(encoding="utf-8")) == []


def test_words_that_do_not_are_found() -> None:
    out = Drawing(200, 100, "Faults")
    out.text(10, 20, "one")
    out.text(14, 24, "two")
    out.text(190, 80, "three")
    assert faults(out.svg()) == ["'three' leaves the picture", "'one' lies over 'two'"]


def test_no_picture_asks_another_host_for_anything() -> None:
    for path in draw.FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"url\(['\"]?http|href|@import|@font-face|<script", text), path.name


def test_the_query_in_the_picture_gives_its_page() -> None:
    words = [w.text for w in all_words(one_query.draw())]
    result = words[words.index("=") + 1]
    start = words.index("0")  # of the first server's table: for each page its number, byte and bit
    assert words[start + 3 * one_query.INDEX :][:2] == [str(one_query.INDEX), result]
    first, second = (int(words[words.index("XOR") + step], 16) for step in (-1, 1))
    assert first ^ second == int(result, 16)


def test_the_xor_of_the_trees_leaves_is_the_page_alone() -> None:
    root = ElementTree.fromstring(dpf_tree.draw())
    paths = [path.get("d", "") for path in root.iter(f"{SVG}path")]
    leaves = dpf_tree.PAGES // 512
    assert len(paths) == 3 * leaves
    xor = paths[2 * leaves :]
    leaf, bit = divmod(dpf_tree.INDEX, 512)
    assert [at for at, path in enumerate(xor) if path] == [leaf]
    row, column = divmod(bit, dpf_tree.ROW_BITS)
    assert xor[leaf] == f"M{column} {row}h1v1h-1z"


def test_buckets_hold_each_page_once() -> None:
    words = [w.text for w in all_words(cpu_buckets.draw())]
    heads = [at for at, text in enumerate(words) if text == "no bucket:"]
    pages = [int(text) for text in words[heads[0] :] if text.isdecimal()]
    assert sorted(pages) == list(range(cpu_buckets.PAGES))


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_lanes_work_in_the_order_of_the_picture(gpu: StandIn, lanes: int) -> None:
    calls = {"cuLaunchKernel": "launch", "cuStreamSynchronize": "wait"}
    pages = mg.PageMatrix(random_table(64, 64))
    queries, _ = mg.make_queries(np.zeros((gpu_lanes.QUERIES, 1), dtype=int), 64)
    engine: Engine
    with mg.open_engine(pages, device="cuda:0") as engine:
        engine.answer(queries, lanes=lanes)  # makes the lanes
        gpu.reset_log()
        chunks = len(engine.answer(queries, lanes=lanes).micro_batch_sizes)
        made = [calls[entry.function] for entry in gpu.log() if entry.function in calls]
    assert made == [step.what for step in gpu_lanes.host_steps(chunks, lanes)]


def test_one_lane_leaves_the_device_idle_and_two_do_not() -> None:
    def gaps(lanes: int) -> float:
        _, device = gpu_lanes.timeline(5, lanes)
        ends = [span.end for span in device[:-1]]
        return sum(span.begin - end for span, end in zip(device[1:], ends, strict=True))

    assert gaps(1) > 0
    assert gaps(2) == 0


def test_the_roofline_has_the_clocks_of_the_performance_page() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    table = text.partition("| clocks at least, of 26.7 |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    expected = {row[0]: row[1:4] for row in rows if len(row) == 5 and row[0][0].isdigit()}
    drawn = {
        f"{loop.keys}, by masks" if loop.masks else str(loop.keys): loop
        for loop in gpu_roofline.loops()
    }
    assert drawn.keys() == expected.keys()
    for keys, (every, work, clocks) in expected.items():
        loop = drawn[keys]
        assert (loop.every, loop.work) == (float(every), float(work))
        assert loop.clocks == pytest.approx(float(clocks), abs=0.06)
    assert gpu_roofline.LOAD_BYTES / gpu_roofline.memory_rate() == pytest.approx(26.7, abs=0.05)


def test_a_constant_that_is_not_there_is_an_error() -> None:
    assert sources.constant("page_jobs.h", "kBlockThreads") == 1024
    assert sources.constant("scan_buckets.h", "kBucketBytes") == 320 << 10
    with pytest.raises(LookupError, match=r"page_jobs\.h has no constant kNoSuch"):
        sources.constant("page_jobs.h", "kNoSuch")


def test_a_screenshot_has_what_was_printed() -> None:
    printed = screenshots.run_on_terminal(
        [sys.executable, "-c", "print('\\x1b[32mgreen words\\x1b[0m')"]
    )
    assert printed == "\x1b[32mgreen words\x1b[0m\n"
    svg = screenshots.picture("a command", printed)
    assert "green&#160;words" in svg
    assert "a&#160;command" in svg


def lasting(words: str) -> str:
    """Words without what differs between runs: numbers, seeds, a page's text, and white space."""
    kept = [line for line in words.splitlines() if not re.match(r"Page \d+ begins", line)]
    text = re.sub(r"\b[0-9a-f]{8}\b|\d[\d,.]*", "N", " ".join(" ".join(kept).split()))
    return re.sub("─+", "─", text)


@pytest.mark.parametrize("shot", screenshots.SHOTS, ids=lambda shot: shot.name)
def test_a_committed_screenshot_has_the_words_of_today(shot: screenshots.Shot) -> None:
    svg = (draw.FOLDER / f"screen-{shot.name}.svg").read_text(encoding="utf-8")
    rows: dict[str, list[tuple[float, str]]] = {}
    for element in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        if element.get("clip-path"):  # a piece of a line of the terminal
            x, text = float(element.get("x", "")), element.text or ""
            rows.setdefault(element.get("y", ""), []).append((x, text.replace("\xa0", " ")))
    shown = "\n".join(" ".join(text for _, text in sorted(row)) for row in rows.values())
    if shot.name == "doctor":  # what it says differs between machines: not the lines that it has
        printed = run_morphogen(*shot.arguments)
        lines = {line[:22].strip() for line in printed.splitlines()}
        lines = {line for line in lines if line and not line.startswith(("self test", "cuda:"))}
        assert {"machine", "device", "All well."} <= lines
        assert lines <= {line[:22].strip() for line in shown.splitlines()}
    else:
        assert lasting(shown) == lasting(run_morphogen(*shot.arguments, "--device", "cpu"))


def run_morphogen(*arguments: str) -> str:
    program = str(Path(sys.executable).with_name("morphogen"))
    text = screenshots.run_on_terminal([program, *arguments])
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def test_a_command_that_fails_gives_no_screenshot() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        screenshots.run_on_terminal([sys.executable, "-c", "raise SystemExit(3)"])
