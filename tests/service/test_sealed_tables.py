"""Serving files of authenticated pages: the tree is recomputed, and another is not served."""

from __future__ import annotations

import json
import ssl
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

import morphogen as mg
import morphogen.service.run as serving
import morphogen.service.table as table
import morphogen.wire as wire
from keyword_tables import plain
from morphogen.authentication import Seal, check_pages, root_of_cap, seal_pages
from morphogen.cli import main
from morphogen.cli.output import OK
from morphogen.keyword import TableLayout
from morphogen.keyword.file import is_table, read_header, write_table
from morphogen.keyword.header import pack_header
from morphogen.keyword.sealing import seal_file
from morphogen.service import describe_table
from morphogen.service.process import ServerProcess
from naive import random_pages
from refusal import refusal
from served_table import SECONDS, http
from standin_driver import StandIn

__all__ = ["http"]

HEADER = 4096
LEVELS, PAGES, PAGE_SIZE = 2, 11, 128
OPTIONS = ("--device", "cpu", "--epoch", "5")
LAYOUT = TableLayout(
    num_pages=PAGES,
    page_size=PAGE_SIZE,
    slots_per_page=2,
    value_size=6,
    seed=bytes(range(16)),
    entries=4,
    fragments=2,
    proof_levels=LEVELS,
)

ITEMS = {b"apple": b"red or green", b"plum": b"blue", b"": b""}  # apple's value is two fragments


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """Returns a sealed file of plain pages."""
    source, path = tmp_path / "plain.bin", tmp_path / "plain.sealed"
    source.write_bytes(random_pages(1, PAGES * (PAGE_SIZE - 32 * LEVELS) - 5).tobytes())
    seal_file(source, path, PAGE_SIZE, LEVELS)
    return path


@pytest.fixture
def words(tmp_path: Path) -> tuple[Path, Seal]:
    """Returns the file of an authenticated keyword table, and its seal."""
    contents = np.frombuffer(b"".join(plain(LAYOUT).fill(ITEMS)), np.uint8).reshape(PAGES, -1)
    seal = seal_pages(contents, PAGE_SIZE, LEVELS, LAYOUT.authenticated_bytes())
    path = tmp_path / "words.table"
    write_table(path, seal.pages, LAYOUT)
    return path, seal


def refused(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    return refusal(capsys, path, "--party", 0, *OPTIONS, *options)


def alter(path: Path, *places: int) -> None:
    """Flip a bit of the bytes at these places."""
    raw = bytearray(path.read_bytes())
    for place in places:
        raw[place] ^= 1
    path.write_bytes(raw)


# What is served


def test_a_keyword_table_is_served_with_its_root_and_cap(
    words: tuple[Path, Seal], http: httpx.Client
) -> None:
    path, seal = words
    with ServerProcess(path, 0, OPTIONS) as server:
        described = http.get(server.url + "/epoch").json()
        assert described["root"] == described["digest"] == seal.root.hex()
        assert (described["proof_levels"], described["table"]) == (LEVELS, LAYOUT.as_dict())
        assert http.get(server.url + wire.cap_path(5)).content == seal.cap.tobytes()
        text = http.get(server.metrics_url).text
        started = json.loads(server.log[0])
    assert (started["root"], started["proof_levels"]) == (seal.root.hex(), LEVELS)
    assert started["digest"] == started["root"]
    samples = {
        sample.name: sample.labels
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    expected = {"root": seal.root.hex(), "proof_levels": str(LEVELS)}
    assert samples["morphogen_table_info"] == expected


def test_a_sealed_file_of_plain_pages_is_served(sealed: Path, http: httpx.Client) -> None:
    root = read_header(sealed).root
    assert root is not None
    with ServerProcess(sealed, 0, (*OPTIONS, "--keys-per-query", "1")) as server:
        info = wire.decode_info(http.get(server.url + "/epoch").content)
        content = http.get(server.url + wire.cap_path(5)).content
        started = json.loads(server.log[0])
    assert (info.root, info.proof_levels, info.table) == (root.hex(), LEVELS, None)
    assert (info.num_pages, info.page_size, info.keys_per_query) == (PAGES, PAGE_SIZE, 1)
    cap = np.frombuffer(content, np.uint8).reshape(-1, 32)
    assert root_of_cap(cap, PAGES, PAGE_SIZE, LEVELS) == root
    assert started["keyword_table"] is False


def test_a_client_checks_what_two_servers_answer(
    words: tuple[Path, Seal], capsys: pytest.CaptureFixture[str]
) -> None:
    path, seal = words
    with ServerProcess(path, 0, OPTIONS) as zero, ServerProcess(path, 1, OPTIONS) as one:
        urls = [zero.url, one.url]
        with mg.Client(urls, root=seal.root) as client:
            assert client.lookup_many([*ITEMS, b"pear"]) == [*ITEMS.values(), None]
            assert client.authenticated
        with pytest.raises(mg.TableMismatchError, match="has another root"):
            mg.Client(urls, root=bytes(32))
        servers = [word for url in urls for word in ("--server", url)]
        told = ["--root", seal.root.hex(), "--json"]
        assert main(["get", *servers, "--lookup", "plum", *told]) == OK
        shown = json.loads(capsys.readouterr().out)
        assert (shown["authenticated"], shown["root"]) == (True, seal.root.hex())


@pytest.mark.slow
def test_a_cap_comes_over_tls(words: tuple[Path, Seal], tmp_path: Path) -> None:
    path, seal = words
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    pem = tmp_path / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(pem)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    options = (*OPTIONS, "--tls-cert", str(pem), "--tls-key", str(pem))
    with (
        ServerProcess(path, 1, options) as server,
        httpx.Client(trust_env=False, verify=trusting, timeout=SECONDS) as http,
    ):
        assert http.get(server.url + wire.cap_path(5)).content == seal.cap.tobytes()


# What is not


@pytest.mark.parametrize("page", [0, 5, PAGES - 1])
@pytest.mark.parametrize("at", [0, PAGE_SIZE - 32 * LEVELS - 1, PAGE_SIZE - 33, PAGE_SIZE - 1])
def test_a_server_whose_file_has_one_wrong_byte_does_not_start(
    sealed: Path, capsys: pytest.CaptureFixture[str], page: int, at: int
) -> None:
    alter(sealed, HEADER + page * PAGE_SIZE + at)
    assert f"{sealed} was altered: " in refused(sealed, capsys)


def test_a_cap_of_other_pages_is_refused(sealed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alter(sealed, sealed.stat().st_size - 1)
    assert "was altered: its cap " in refused(sealed, capsys)


def test_another_root_is_refused(
    words: tuple[Path, Seal], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = words
    header = read_header(path)
    other = pack_header(replace(header, root=bytes(32)))
    path.write_bytes(other + path.read_bytes()[HEADER:])
    assert "was altered: its cap does not have the root of its header" in refused(path, capsys)


def test_another_layout_is_another_root(
    words: tuple[Path, Seal], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = words
    header = read_header(path)
    layout = TableLayout.from_dict({**LAYOUT.as_dict(), "seed": "ff" * 16})
    other = pack_header(replace(header, layout=layout))
    path.write_bytes(other + path.read_bytes()[HEADER:])
    assert "was altered: its cap does not have the root of its header" in refused(path, capsys)


def test_two_pages_in_each_others_place_are_refused(
    sealed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray(sealed.read_bytes())
    one, other = HEADER + 3 * PAGE_SIZE, HEADER + 7 * PAGE_SIZE
    raw[one : one + PAGE_SIZE], raw[other : other + PAGE_SIZE] = (
        raw[other : other + PAGE_SIZE],
        raw[one : one + PAGE_SIZE],
    )
    sealed.write_bytes(raw)
    assert "was altered: " in refused(sealed, capsys)


def test_every_byte_of_a_sealed_file_counts(tmp_path: Path) -> None:
    source, path = tmp_path / "plain.bin", tmp_path / "plain.sealed"
    source.write_bytes(bytes(range(150)))
    seal_file(source, path, 64, 1)
    whole = path.read_bytes()
    for place in range(len(whole)):
        # A zero of the header, of which its hash tells, is left to the tests of the file.
        if 256 <= place < HEADER - 32:
            continue
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x80]) + whole[place + 1 :])
        if place < 3:  # of the magic: it is still no file of plain pages
            assert is_table(path)
        with pytest.raises(mg.TableFileError):
            served(path).read()
    path.write_bytes(whole)
    assert served(path).read()[1] is not None


def served(path: Path) -> table.PagesFile:
    return table.PagesFile(path, page_size=None, keys_per_query=3, epoch=5)


def test_a_sealed_file_says_its_page_size_itself(
    sealed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(sealed, capsys, "--page-size", "128")
    assert "is a file of sealed pages, which says its page size itself: give none, not 128" in told


def test_a_bound_of_unread_answers_has_room_for_a_part_of_the_cap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, path = tmp_path / "plain.bin", tmp_path / "plain.sealed"
    source.write_bytes(bytes(40_000))
    seal_file(source, path, 1, 0)  # a cap of 32 bytes a page
    told = refused(path, capsys, "--max-unread", "1000000")
    assert "unread_bytes must be at least 1048576, the largest answer, not 1000000" in told


# The reading


@pytest.mark.parametrize("levels", range(4))
def test_sealed_pages_are_what_was_sealed(tmp_path: Path, levels: int) -> None:
    source, path = tmp_path / "plain.bin", tmp_path / "plain.sealed"
    source.write_bytes(random_pages(1, 1000).tobytes())
    seal_file(source, path, 128, levels)
    _, tree = served(path).read()
    assert tree is not None
    size = 128 - 32 * levels
    contents = np.zeros((-(-1000 // size), size), np.uint8)
    contents.reshape(-1)[:1000] = np.frombuffer(source.read_bytes(), np.uint8)
    seal = seal_pages(contents, 128, levels)
    np.testing.assert_array_equal(served(path).pages.body, seal.pages)
    assert (tree.root, tree.cap.tobytes()) == (seal.root, seal.cap.tobytes())


def test_a_table_of_version_1_has_no_tree(tmp_path: Path) -> None:
    array = random_pages(PAGES, PAGE_SIZE)
    layout = replace(LAYOUT, fragments=1, proof_levels=0, version=1)
    write_table(tmp_path / "old.table", array, layout)
    assert served(tmp_path / "old.table").read() == (sha256(array.tobytes()).hexdigest(), None)
    alter(tmp_path / "old.table", HEADER)
    with pytest.raises(mg.TableFileError, match="its pages do not have their SHA-256"):
        served(tmp_path / "old.table").read()


def test_a_gpu_answers_with_authenticated_pages(gpu: StandIn, words: tuple[Path, Seal]) -> None:
    path, seal = words
    file = served(path)
    _, tree = file.read()
    assert tree is not None
    query = mg.make_query([0, 6, PAGES - 1], PAGES)
    with mg.open_engine(file.pages, device="cuda") as engine:
        info = describe_table(engine, 0, layout=LAYOUT.as_dict(), tree=tree)
        assert (info.device, info.root, info.proof_levels) == ("cuda:0", seal.root.hex(), LEVELS)
        pages = mg.reconstruct(engine.answer([query[0]]), engine.answer([query[1]]))[0]
    assert check_pages(pages, [0, 6, PAGES - 1], tree.cap, LEVELS)
    assert not check_pages(pages, [0, 5, PAGES - 1], tree.cap, LEVELS)


def test_all_pages_are_read_once_and_told(
    words: tuple[Path, Seal], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seal = words
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(table, "digest_pages", lambda *_: pytest.fail("they were read twice"))
    digest, tree = served(path).read(lambda done, total: told.append((done, total)))
    assert digest is None
    assert tree is not None
    assert (tree.root, tree.cap.tobytes()) == (seal.root, seal.cap.tobytes())
    assert told[0][0] < told[-1][0] == told[-1][1] == PAGES * PAGE_SIZE


def test_what_cannot_be_served_is_refused_before_the_tree_is_made(
    sealed: Path,
    words: tuple[Path, Seal],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(table, "verified_tree", lambda *_: pytest.fail("the pages were read"))
    assert "not 'tpu'" in refused(sealed, capsys, "--device", "tpu")
    assert "must be 3 for a keyword table" in refused(words[0], capsys, "--keys-per-query", "2")
    with pytest.raises(pytest.fail.Exception):
        serving.serve(serving.ServerConfig(path=sealed, party=0))
