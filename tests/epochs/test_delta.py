"""Delta files: written as documented, refused when one byte is another."""

from __future__ import annotations

import os
import random
import re
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keyword_format as fmt
import morphogen as mg
from authentication_format import Table
from delta_format import HEADER, delta_file, resealed, sealed
from morphogen.epochs.delta import DeltaHeader, open_delta, read_delta_header, write_delta
from morphogen.epochs.delta_header import parse_header
from morphogen.keyword import TableLayout
from naive import random_pages

PROTOCOL = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
SEED = bytes(range(0x11, 0x21))
LAYOUT = TableLayout(19, 150, 3, 5, SEED, 30, fragments=3, proof_levels=2)
ROOTS = bytes(range(32)), bytes(range(32, 64))
CHANGES = {at: random_pages(19, 86)[at].tobytes() for at in (0, 5, 6, 18)}
FIELDS: dict[str, Any] = {
    "from_epoch": 6,
    "to_epoch": 9,
    "num_pages": 19,
    "page_size": 150,
    "proof_levels": 2,
    "root_before": ROOTS[0],
    "root_after": ROOTS[1],
    "layout": LAYOUT,
    "indices": np.array([0, 5, 6, 18]),
    "contents": random_pages(19, 86)[[0, 5, 6, 18]],
}
PLAIN = {"layout": None}


def expected(layout: bytes = LAYOUT.authenticated_bytes()) -> bytes:
    return delta_file(CHANGES, epochs=(6, 9), shape=(19, 150, 2), roots=ROOTS, layout=layout)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.delta"
    path.write_bytes(expected())
    return path


def refused(path: Path, message: str = "") -> None:
    for read in (open_delta, read_delta_header):
        with pytest.raises(mg.DeltaError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(str(path))


# Contents


@pytest.mark.parametrize("more", [{}, PLAIN], ids=["keyword table", "plain pages"])
def test_the_file_is_what_the_document_says(more: dict[str, Any], tmp_path: Path) -> None:
    header = write_delta(tmp_path / "delta", **(FIELDS | more))
    raw = (tmp_path / "delta").read_bytes()
    assert raw == expected(b"" if more else LAYOUT.authenticated_bytes())
    assert header == read_delta_header(tmp_path / "delta")
    assert header.file_size == len(raw) == HEADER + 4096 + 4 * 86


def test_a_delta_there_and_back(path: Path) -> None:
    calls: list[tuple[int, int]] = []
    delta = open_delta(path, lambda *call: calls.append(call))
    assert delta.header == DeltaHeader(6, 9, 19, 150, 2, 4, *ROOTS, LAYOUT, delta.header.digest)
    assert delta.header.authenticated_layout == LAYOUT.authenticated_bytes()
    assert delta.indices.dtype == np.int64
    pairs = zip(delta.indices.tolist(), delta.contents, strict=True)
    assert {at: row.tobytes() for at, row in pairs} == CHANGES
    assert delta.name == str(path)
    assert calls == [(4096, len(expected())), (len(expected()), len(expected()))]
    with pytest.raises(ValueError, match="read-only"):
        delta.contents[0, 0] = 1


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513])
def test_the_numbers_of_pages_end_with_a_block(count: int, tmp_path: Path) -> None:
    contents = random_pages(count, 9) if count else np.empty((0, 9), dtype=np.uint8)
    more = {"num_pages": 600, "page_size": 9, "proof_levels": 0, "layout": None}
    fields = FIELDS | more | {"indices": np.arange(count), "contents": contents}
    write_delta(tmp_path / "delta", **fields)
    changes = dict(enumerate(row.tobytes() for row in contents))
    raw = delta_file(changes, epochs=(6, 9), shape=(600, 9, 0), roots=ROOTS)
    assert (tmp_path / "delta").read_bytes() == raw
    delta = open_delta(tmp_path / "delta")
    assert delta.indices.tolist() == list(range(count))
    np.testing.assert_array_equal(delta.contents, contents)


def test_contents_may_come_in_parts_and_lie_anywhere(tmp_path: Path) -> None:
    whole = FIELDS["contents"]
    calls: list[tuple[int, int]] = []
    for contents in (
        iter([whole[:1], whole[1:1], whole[1:]]),
        np.asfortranarray(whole),
        np.repeat(whole, 2, axis=1)[:, ::2],
    ):
        fields = FIELDS | {"contents": contents, "progress": lambda *call: calls.append(call)}
        write_delta(tmp_path / "delta", **fields)
        assert (tmp_path / "delta").read_bytes() == expected()
    assert calls[:3] == [(8192 + done * 86, 8192 + 4 * 86) for done in (1, 1, 4)]


def test_large_deltas_are_written_and_checked_in_parts(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphogen.epochs.delta._HASHED", 2)
    monkeypatch.setattr("morphogen.epochs.delta_header._CHECKED", 2)
    write_delta(tmp_path / "delta", **FIELDS)
    assert (tmp_path / "delta").read_bytes() == expected()
    assert open_delta(path).indices.tolist() == [0, 5, 6, 18]
    for numbers in ([0, 6, 5, 18], [5, 0, 6, 18], [0, 5, 18, 6]):
        raw = expected()
        path.write_bytes(resealed(raw[:HEADER] + struct.pack("<4Q", *numbers) + raw[HEADER + 32 :]))
        with pytest.raises(mg.DeltaError, match="indices must be ascending, not "):
            open_delta(path)


# Refusals


def test_every_wrong_byte_is_refused(path: Path) -> None:
    raw = bytearray(expected())
    for at in range(HEADER):
        raw[at] ^= 1 << at % 8
        with pytest.raises(mg.DeltaError):
            parse_header(bytes(raw[:HEADER]), len(raw), path)
        raw[at] ^= 1 << at % 8
    for at in (*range(0, HEADER, 64), *range(HEADER, len(raw), 7)):
        raw[at] ^= 1 << at % 8
        path.write_bytes(raw)
        with pytest.raises(mg.DeltaError):
            open_delta(path)
        raw[at] ^= 1 << at % 8
    path.write_bytes(raw)
    open_delta(path)


def test_a_file_of_another_length_is_refused(path: Path) -> None:
    raw = expected()
    for length in (0, 7, 8, 4095, 4096, 4097, 8192, len(raw) - 86, len(raw) - 1):
        path.write_bytes(raw[:length])
        refused(path, "is not a delta" if length < 8 else "is truncated: ")
    for more in (b"\0", bytes(86)):
        path.write_bytes(raw + more)
        refused(path, f"is too long: {len(raw) + len(more)} bytes instead of {len(raw)}")


def test_what_was_never_finished_or_is_no_delta(path: Path, tmp_path: Path) -> None:
    path.write_bytes(expected()[:8].ljust(HEADER, b"\0") + expected()[HEADER:])
    refused(path, "was not written to its end")
    path.write_bytes(b"MGKWT" + expected()[5:])
    refused(path, "is not a delta: it begins otherwise")
    path.write_bytes(expected().replace(b"\r\n", b"\n"))
    refused(path, "is not a delta: it begins otherwise")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refused(pipe, "is a pipe, not a delta")
    with pytest.raises(FileNotFoundError):
        open_delta(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        open_delta(tmp_path)


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (8, "<I", 2, "has version 2 of the format and a header of 4096 bytes; this release reads"),
        (12, "<I", 8192, "has version 1 of the format and a header of 8192 bytes"),
        (16, "<Q", 9, "to_epoch must be above from_epoch, 9, not 9"),
        (24, "<Q", 5, "to_epoch must be above from_epoch, 6, not 5"),
        (24, "<Q", 2**63, r"to_epoch must be in 0\.\.2\*\*63 - 1, not"),
        (32, "<Q", 0, r"num_pages must be in 1\.\.2\*\*40, not 0"),
        (32, "<Q", 3, r"count must be in 0\.\.3, not 4|entries must be in"),
        (40, "<Q", 64, "proof_levels must be at most 1"),
        (40, "<Q", 2**64 - 1, r"page_size must be in 1\.\.2\*\*40"),
        (48, "<Q", 6, r"proof_levels must be in 0\.\.5, not 6"),
        (56, "<Q", 5, "is truncated: "),
        (56, "<Q", 3, "is too long: "),
        (56, "<Q", 20, r"count must be in 0\.\.19, not 20"),
        (56, "<Q", 2**64 - 1, r"count must be in 0\.\.19, not"),
        (128, "<Q", 0, r"slots_per_page must be in 1\.\.2\*\*40, not 0"),
        (144, "<Q", 58, r"entries must be in 1\.\.57, not 58"),
        (168, "<Q", 0, r"fragments must be in 1\.\.32, not 0"),
        (208, "<Q", 1, "unused bytes are not zero"),
        (4063, "<B", 1, "unused bytes are not zero"),
    ],
)
def test_a_well_sealed_header_of_nonsense_is_refused(
    path: Path, offset: int, form: str, value: int, message: str
) -> None:
    raw = bytearray(expected())
    struct.pack_into(form, raw, offset, value)
    path.write_bytes(sealed(bytes(raw)))
    refused(path, message)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (HEADER + 24, 19, r"an index must be in 0\.\.18, not 19"),
        (HEADER + 24, 2**64 - 1, rf"an index must be in 0\.\.18, not {2**64 - 1}"),
        (HEADER, 5, "indices must be ascending, not 5, then 5"),
        (HEADER + 8, 7, "indices must be ascending, not 7, then 6"),
        (HEADER + 32, 1, "has bytes before its contents that are not zero"),
        (HEADER + 4088, 1 << 56, "has bytes before its contents that are not zero"),
    ],
)
def test_well_sealed_numbers_of_nonsense_are_refused(
    path: Path, offset: int, value: int, message: str
) -> None:
    raw = bytearray(expected())
    struct.pack_into("<Q", raw, offset, value)
    path.write_bytes(sealed(bytes(raw)))
    with pytest.raises(mg.DeltaError, match="what follows its header does not have the SHA-256"):
        open_delta(path)
    path.write_bytes(resealed(bytes(raw)))
    with pytest.raises(mg.DeltaError, match=message):
        open_delta(path)


def test_hostile_files_are_refused_before_anything_large_is_allocated(path: Path) -> None:
    """Mutations by somebody who seals them well."""
    rng = random.Random(17)
    values = [0, 1, 2, 2**31, 2**32, 2**40, 2**40 + 1, 2**63 - 1, 2**63, 2**64 - 1]
    raw, accepted = expected(), 0
    tracemalloc.start()
    for _ in range(2000):
        changed = bytearray(raw)
        for _ in range(rng.randint(1, 3)):
            at = 8 * rng.choice([*range(2, 8), *range(16, 22), *range(512, 516)])
            old = int.from_bytes(changed[at : at + 8], "little")
            new = rng.choice(
                [rng.choice(values), old + rng.randint(-2, 2), old ^ 1 << rng.randrange(64)]
            )
            changed[at : at + 8] = (new % 2**64).to_bytes(8, "little")
        path.write_bytes(resealed(bytes(changed)))
        try:
            delta = open_delta(path)
        except mg.DeltaError:
            continue
        accepted += 1
        assert delta.header.file_size == len(raw)
        assert len(delta.indices) == len(delta.contents) == delta.header.count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert accepted
    assert peak < 1 << 20


# Bad input


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"to_epoch": 6}, ValueError, "to_epoch must be above from_epoch, 6, not 6"),
        ({"from_epoch": "6"}, TypeError, "epoch must be an int, not str"),
        ({"proof_levels": 6}, ValueError, "proof_levels must be in 0..5, not 6"),
        ({"root_before": "00"}, TypeError, "root_before must be bytes, not str"),
        ({"root_after": bytes(31)}, ValueError, "root_after must have 32 bytes, not 31"),
        ({"num_pages": 20}, ValueError, "layout must have num_pages 20, not 19"),
        (
            {"indices": [0, 5, 6, 18]},
            TypeError,
            "indices must be a numpy.ndarray of whole numbers, not a list",
        ),
        (
            {"indices": np.zeros(4)},
            TypeError,
            "indices must be a numpy.ndarray of whole numbers, not of float64",
        ),
        ({"indices": np.zeros((4, 1), int)}, ValueError, "indices must have 1 dimension, not 2"),
        (
            {"indices": np.array([0, 5, 5, 6])},
            ValueError,
            "indices must be ascending, not 5, then 5",
        ),
        ({"indices": np.array([-1, 5, 6, 18])}, ValueError, "an index must be in 0..18, not -1"),
        ({"indices": np.array([0, 5, 6, 19])}, ValueError, "an index must be in 0..18, not 19"),
        (
            {"indices": np.array([0, 5, 6])},
            ValueError,
            "contents must be 3, one for each of the indices, not 4",
        ),
        (
            {"contents": random_pages(4, 85)},
            ValueError,
            "contents must have shape (4, 86), not (4, 85)",
        ),
        (
            {"contents": [random_pages(3, 86)]},
            ValueError,
            "contents must be 4, one for each of the indices, not 3",
        ),
        ({"contents": [b"x" * 86]}, TypeError, "contents must be a numpy.ndarray, not bytes"),
    ],
)
def test_what_is_not_written(
    changes: dict[str, Any], error: type[Exception], message: str, path: Path
) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        write_delta(path, **(FIELDS | changes))
    assert path.read_bytes() == expected()
    assert [entry.name for entry in path.parent.iterdir()] == ["a.delta"]


def test_a_layout_of_version_1_has_no_root(path: Path) -> None:
    layout = TableLayout(19, 150, 3, 5, SEED, 30, version=1)
    with pytest.raises(ValueError, match=r"^version must be 2 for a table with a root, not 1$"):
        write_delta(path, **(FIELDS | {"layout": layout, "proof_levels": 0, "contents": []}))


# The document


def document_block(title: str) -> dict[str, bytes]:
    section = PROTOCOL.read_text(encoding="utf-8").split(f"\n{title}\n")[1]
    block = section.split("```text\n")[1].split("```")[0]
    lines = (line.partition("=") for line in re.sub(r"\n +", "", block).splitlines())
    return {name.strip(): bytes.fromhex(digits) for name, _, digits in lines}


def contents_of_the_example() -> tuple[list[bytes], list[bytes]]:
    pages = document_block("### 12.7 Worked example of version 2")
    before = [pages[f"page.{at}"][:48] for at in range(3)]
    return before, [content.replace(b"blue", b"navy") for content in before]


def test_the_example_of_the_document_is_true() -> None:
    layout = fmt.Format(3, 80, 2, 4, SEED, 4, fragments=2, proof_levels=1).authenticated()
    before, after = contents_of_the_example()
    trees = [Table(tuple(contents), 1, layout) for contents in (before, after)]
    raw = delta_file(
        {1: after[1]},
        epochs=(6, 7),
        shape=(3, 80, 1),
        roots=(trees[0].root(), trees[1].root()),
        layout=layout,
    )
    assert document_block("## 15. Deltas") == {
        "root.before": trees[0].root(),
        "page.0": trees[1].page(0),
        "page.1": trees[1].page(1),
        "cap.0": trees[1].cap()[0],
        "cap.1": trees[1].cap()[1],
        "root.after": trees[1].root(),
        "header.fields": raw[:208],
        "header.seal": raw[4064:4096],
        "numbers": raw[4096:4104],
        "contents": raw[8192:],
    }
    assert [trees[0].page(at) == trees[1].page(at) for at in range(3)] == [False, False, True]


def test_the_library_gives_the_example_of_the_document(tmp_path: Path) -> None:
    document = document_block("## 15. Deltas")
    layout = TableLayout(3, 80, 2, 4, SEED, 4, fragments=2, proof_levels=1)
    write_delta(
        tmp_path / "delta",
        from_epoch=6,
        to_epoch=7,
        num_pages=3,
        page_size=80,
        proof_levels=1,
        root_before=document["root.before"],
        root_after=document["root.after"],
        layout=layout,
        indices=np.array([1]),
        contents=np.frombuffer(document["contents"], dtype=np.uint8).reshape(1, 48),
    )
    raw = (tmp_path / "delta").read_bytes()
    assert (raw[:208], raw[4064:4096]) == (document["header.fields"], document["header.seal"])
    assert raw[4096:] == document["numbers"].ljust(4096, b"\0") + document["contents"]
