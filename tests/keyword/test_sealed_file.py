"""Table files of version 2: written as documented, refused when one byte is another."""

from __future__ import annotations

import hashlib
import io
import random
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import keyword_format as fmt
import morphogen as mg
import morphogen.keyword.file as table_file
from authentication_format import Table
from keyword_tables import plain, read
from morphogen.authentication import fill_siblings, root_of_cap
from morphogen.keyword import TableLayout
from morphogen.keyword.file import (
    HEADER_BYTES,
    open_table,
    read_cap,
    read_header,
    send_table,
    write_table,
)
from morphogen.keyword.sealing import seal_file
from naive import Bytes

RECORDED = Path(__file__).resolve().parents[1] / "vectors" / "keyword_v1.table"
SEED = bytes(range(0x11, 0x21))
LAYOUT = TableLayout(19, 150, 3, 5, SEED, 30, fragments=3, proof_levels=2)
ITEMS = {b"key %d" % at: bytes(range(at, at + at % 15)) for at in range(15)}


@pytest.fixture(scope="module")
def table() -> Bytes:
    """Pages of LAYOUT, with ITEMS."""
    pages = np.zeros((19, 150), dtype=np.uint8)
    for page, content in zip(pages, plain(LAYOUT).fill(ITEMS), strict=True):
        page[:86] = np.frombuffer(content, dtype=np.uint8)
    fill_siblings(pages, 2, LAYOUT.authenticated_bytes())
    return pages


@pytest.fixture
def path(tmp_path: Path, table: Bytes) -> Path:
    path = tmp_path / "table"
    write_table(path, table, LAYOUT)
    return path


def resealed(raw: bytes) -> bytes:
    """The same file with a header that says its own SHA-256: by somebody who knows how."""
    head = raw[: HEADER_BYTES - 32]
    return head + hashlib.sha256(head).digest() + raw[HEADER_BYTES:]


def put(path: Path, at: int, byte: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([byte]))


# Contents


def test_the_file_is_what_the_document_says(table: Bytes, tmp_path: Path, chunk_bytes: int) -> None:
    contents = plain(LAYOUT).fill(ITEMS)
    expected = fmt.sealed_file(plain(LAYOUT), contents, 2)
    header = write_table(tmp_path / "table", table, LAYOUT)
    assert (tmp_path / "table").read_bytes() == expected
    stream = io.BytesIO()
    assert send_table(stream, table, LAYOUT) == header
    assert stream.getvalue() == expected
    assert header == read_header(tmp_path / "table")
    assert (header.layout, header.version, header.proof_levels) == (LAYOUT, 2, 2)
    assert header.file_size == len(expected)


def test_a_table_there_and_back(path: Path, table: Bytes) -> None:
    found = open_table(path, 7)
    assert found.layout == LAYOUT
    assert (found.pages.body == table).all()
    assert (found.pages.epoch, found.pages.tail) == (7, None)
    assert found.tree is not None
    assert found.tree.root == found.header.root
    assert (found.tree.cap == read_cap(path)).all()
    root = root_of_cap(read_cap(path), 19, 150, 2, LAYOUT.authenticated_bytes())
    assert root == found.header.root
    for key in [*ITEMS, b"absent"]:
        assert read(LAYOUT, found.pages.body, key) == ITEMS.get(key)
    unverified = open_table(path, verify=False)
    assert unverified.tree is None
    assert (unverified.pages.body == table).all()


def test_pages_that_do_not_prove_themselves_are_not_written(table: Bytes, path: Path) -> None:
    before = path.read_bytes()
    wrong = table.copy()
    wrong[3, 100] ^= 1
    with pytest.raises(mg.IntegrityError):
        write_table(path, wrong, LAYOUT)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["table"]
    stream = io.BytesIO()
    with pytest.raises(mg.IntegrityError):
        send_table(stream, wrong, LAYOUT)
    assert not stream.getvalue()


def test_progress_counts_bytes(path: Path, table: Bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morphogen.authentication.tree._CHUNK_BYTES", 600)
    expected = [(done, 2850) for done in (0, 600, 1200, 1800, 2400, 2850)]
    calls: list[tuple[int, int]] = []
    write_table(path, table, LAYOUT, progress=lambda *call: calls.append(call))
    assert calls == expected
    calls.clear()
    open_table(path, progress=lambda *call: calls.append(call))
    assert calls == expected


# Refusals


def test_every_wrong_byte_is_refused(path: Path) -> None:
    raw = path.read_bytes()
    assert len(raw) == 4096 + 19 * 150 + 5 * 32
    for at in range(HEADER_BYTES):
        head = raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 : HEADER_BYTES]
        with pytest.raises(mg.TableFileError):
            table_file.parse_header(head, len(raw), path)
    for at in (*range(0, HEADER_BYTES, 64), *range(HEADER_BYTES, len(raw))):
        put(path, at, raw[at] ^ 1 << at % 8)
        with pytest.raises(mg.TableFileError):
            open_table(path)
        if at >= HEADER_BYTES + 19 * 150:
            with pytest.raises(mg.TableFileError, match="its cap does not have the root of its"):
                read_cap(path)
        put(path, at, raw[at])
    open_table(path)


def test_every_bit_of_every_page_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sealed"
    (tmp_path / "file").write_bytes(bytes(range(40)))
    seal_file(tmp_path / "file", path, 80, 2)
    raw = path.read_bytes()
    assert len(raw) == HEADER_BYTES + 3 * 80 + 32
    for at in range(HEADER_BYTES, len(raw)):
        for bit in range(8):
            put(path, at, raw[at] ^ 1 << bit)
            with pytest.raises(mg.TableFileError, match="was altered: its "):
                open_table(path)
        put(path, at, raw[at])


def test_no_two_pages_may_be_swapped(path: Path, chunk_bytes: int) -> None:
    raw = path.read_bytes()
    start, size = HEADER_BYTES, 150
    pages = [raw[start + at * size :][:size] for at in range(19)]
    for one in range(19):
        for other in range(one):
            swapped = list(pages)
            swapped[one], swapped[other] = pages[other], pages[one]
            path.write_bytes(raw[:start] + b"".join(swapped) + raw[start + 19 * size :])
            with pytest.raises(mg.TableFileError, match="was altered: its pages do not have"):
                open_table(path)


@pytest.mark.parametrize("verify", [False, True])
def test_a_file_of_another_length_is_refused(path: Path, verify: bool) -> None:
    raw = path.read_bytes()
    cap = len(raw) - 160
    for length in (0, 7, 8, 4095, 4096, 4097, cap - 1, cap, cap + 1, cap + 32, len(raw) - 1):
        path.write_bytes(raw[:length])
        message = "is not a keyword table" if length < 8 else "is truncated: "
        for call in (lambda: open_table(path, verify=verify), lambda: read_cap(path)):
            with pytest.raises(mg.TableFileError, match=message):
                call()
    for more in (b"\0", bytes(32)):
        path.write_bytes(raw + more)
        with pytest.raises(mg.TableFileError, match=f"is too long: {len(raw) + len(more)} bytes "):
            open_table(path, verify=verify)


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (8, "<I", 1, "unused bytes are not zero"),
        (8, "<I", 3, "version 3 of the format"),
        (16, "<Q", 2**40, "is truncated"),
        (32, "<Q", 0, "slots_per_page must be in 1"),
        (48, "<Q", 0, "entries must be in 1"),
        (104, "<Q", 4, "slots_per_page must be at most 0"),
        (104, "<Q", 5, "proof_levels must be at most 4, so that pages of 150 bytes have room"),
        (104, "<Q", 6, "proof_levels must be in 0..5, not 6"),
        (104, "<Q", 2**64 - 1, "proof_levels must be in 0..5"),
        (104, "<Q", 0, "is truncated"),
        (112, "<Q", 0, "fragments must be in 1..32, not 0"),
        (112, "<Q", 33, "fragments must be in 1..32, not 33"),
        (152, "<Q", 1, "unused bytes are not zero"),
        (4063, "<B", 1, "unused bytes are not zero"),
    ],
)
def test_a_well_sealed_header_of_nonsense_is_refused(
    path: Path, offset: int, form: str, value: int, message: str
) -> None:
    raw = bytearray(path.read_bytes())
    struct.pack_into(form, raw, offset, value)
    path.write_bytes(resealed(bytes(raw)))
    with pytest.raises(mg.TableFileError, match=message):
        open_table(path, verify=False)


@pytest.mark.parametrize(
    ("version", "count"),
    [(1, 1000), (2, 1000), *(pytest.param(v, 10_000, marks=pytest.mark.slow) for v in (1, 2))],
)
def test_hostile_headers_are_refused_or_give_the_right_values(
    version: int, count: int, path: Path
) -> None:
    """Mutations by somebody who seals them well: no crash, and nothing large is allocated."""
    if version == 1:
        path.write_bytes(RECORDED.read_bytes())
    raw = path.read_bytes()
    body, header = raw[HEADER_BYTES:], read_header(path)
    rng = random.Random(f"{version} {count}")
    fields = [(8, 4), (12, 4), *((at, 8) for at in range(16, 56, 8)), (56, 16), (72, 32)]
    fields += [(104, 8), (112, 8), (120, 32)]
    values = [0, 1, 2, 3, 4, 2**31, 2**32 - 1, 2**32, 2**40, 2**40 + 1, 2**63, 2**64 - 1]
    accepted = 0
    tracemalloc.start()
    for _ in range(count):
        head = bytearray(raw[:HEADER_BYTES])
        for _ in range(rng.randint(1, 3)):
            at, size = rng.choice(fields)
            old = int.from_bytes(head[at : at + size], "little")
            new = rng.choice(
                [rng.choice(values), old + rng.randint(-2, 2), old ^ 1 << rng.randint(0, 63)]
            )
            head[at : at + size] = (new % 2 ** (8 * size)).to_bytes(size, "little")
        if rng.random() < 0.05:
            head[rng.randrange(HEADER_BYTES)] ^= 1 << rng.randrange(8)
        sealed = resealed(bytes(head))
        try:
            found = table_file.parse_header(sealed, len(raw), path)
        except mg.TableFileError:
            continue
        accepted += 1
        # What is accepted describes the file that is there, in full.
        assert found.file_size == len(raw)
        assert table_file.pack_header(found) == sealed
        assert found.num_pages * found.page_size <= len(body)
        # Its pages are refused unless nothing of the table is another.
        with path.open("r+b") as file:
            file.write(sealed)
        try:
            table = open_table(path)
        except mg.TableFileError:
            continue
        assert table.header.root == header.root
        if version == 2:
            assert table.layout == header.layout
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert accepted
    assert peak < 1 << 20


# The document


def document_example() -> dict[str, bytes]:
    protocol = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
    section = protocol.read_text(encoding="utf-8").split("\n### 12.7 Worked example of version 2\n")
    block = section[1].split("```text\n")[1].split("```")[0]
    lines = (line.partition("=") for line in re.sub(r"\n +", "", block).splitlines())
    return {name.strip(): bytes.fromhex(digits) for name, _, digits in lines}


EXAMPLE = {b"apple": b"a fruit", b"plum": b"blue", b"": b"", b"pear": None}
NAMES = ("apple", "plum", "empty", "absent")


def test_the_example_of_the_document_is_true() -> None:
    document = document_example()
    table = fmt.Format(3, 80, 2, 4, SEED, 4, fragments=2, proof_levels=1)
    contents = [document[f"page.{at}"][:48] for at in range(3)]
    tree = Table(tuple(contents), 1, table.authenticated())
    raw = fmt.sealed_file(table, contents, 1)
    expected = {
        "seed": SEED,
        **{f"apple.digest.{f}": table.digest(b"apple", f) for f in range(2)},
        **{f"page.{at}": tree.page(at) for at in range(3)},
        **{f"cap.{at}": node for at, node in enumerate(tree.cap())},
        "layout": table.authenticated(),
        "root": tree.root(),
        "header.fields": raw[:152],
        "header.seal": raw[4064:4096],
    }
    for name, (key, value) in zip(NAMES, EXAMPLE.items(), strict=True):
        expected[f"{name}.pages"] = bytes(table.candidates(key))
        pages = [document[f"page.{at}"] for at in table.candidates(key)]
        assert table.find(key, pages) == value
    assert document == expected
    slots = [slot for content in contents for slot in table.slots(content) if any(slot)]
    assert len(slots) == table.entries


def test_the_library_gives_the_example_of_the_document(tmp_path: Path) -> None:
    document = document_example()
    layout = TableLayout(3, 80, 2, 4, SEED, 4, fragments=2, proof_levels=1)
    pages = np.stack([np.frombuffer(document[f"page.{at}"], np.uint8) for at in range(3)])
    header = write_table(tmp_path / "table", pages, layout)
    raw = (tmp_path / "table").read_bytes()
    assert header.root == document["root"]
    assert (raw[:152], raw[4064:4096]) == (document["header.fields"], document["header.seal"])
    assert raw[4096:] == pages.tobytes() + document["cap.0"] + document["cap.1"]
    assert layout.authenticated_bytes() == document["layout"]
    for name, (key, value) in zip(NAMES, EXAMPLE.items(), strict=True):
        assert bytes(layout.candidates(key)) == document[f"{name}.pages"]
        assert read(layout, pages, key) == value
