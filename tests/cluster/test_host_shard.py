"""The shard of a host: it maps its own pages, and answers for one epoch, root and range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import morphogen as mg
from morphogen.cluster.host_shard import HostShard, Rows
from morphogen.cluster.source import Source
from morphogen.engine.shards.transport import Pass
from morphogen.errors import ShardMismatchError, TableFileError
from morphogen.keyword.file import read_cap
from morphogen.keyword.sealing import seal_file
from morphogen.sharding import ShardRange
from naive import naive_answers, random_pages, random_rows
from standin_driver import StandIn

PAGES = random_pages(1301, 70)
HELD = ShardRange(512, 512)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "pages.bin"
    PAGES.tofile(path)
    return path


@pytest.fixture
def shard() -> HostShard:
    return HostShard("cpu", 1)


QUERIES = mg.make_queries(random_rows(3, 2, len(PAGES)), len(PAGES))[0]


def job(epoch: int = 7, root: bytes | None = None) -> Pass:
    keys = b"".join(key for query in QUERIES for key in query.keys)
    return Pass(5, epoch, root, keys, 3, 2)


def of_range(pages: np.ndarray, held: ShardRange) -> np.ndarray:
    others = pages.copy()
    others[: held.first] = 0
    others[held.stop :] = 0
    return naive_answers(others, QUERIES)


def test_it_answers_for_its_range(shard: HostShard, path: Path) -> None:
    facts = shard.open(Source(str(path), 70, 7), HELD, (7, None))
    assert (facts.range, facts.table, facts.root) == (HELD, mg.TableShape(1301, 70, 7), None)
    part = shard.answer(job(), HELD)
    assert (part.number, part.range, part.epoch, part.root) == (5, HELD, 7, None)
    assert np.array_equal(part.pages, of_range(PAGES, HELD))


def test_another_epoch_root_or_range_is_refused(shard: HostShard, path: Path) -> None:
    shard.open(Source(str(path), 70, 7), HELD, (7, None))
    with pytest.raises(ShardMismatchError, match="must have epoch 8, and has epoch 7"):
        shard.answer(job(epoch=8), HELD)
    with pytest.raises(ShardMismatchError, match=f"must have epoch 7 of root {'ab' * 32}"):
        shard.answer(job(root=b"\xab" * 32), HELD)
    with pytest.raises(ShardMismatchError, match="pages 512 to 1023, not for pages 0 to 511"):
        shard.answer(job(), ShardRange(0, 512))


def test_an_epoch_is_opened_once(shard: HostShard, path: Path) -> None:
    shard.open(Source(str(path), 70, 7), HELD, (7, None))
    with pytest.raises(ShardMismatchError, match="must be opened once, and is open: pages 512"):
        shard.open(Source(str(path), 70, 7), ShardRange(0, 512), (7, None))


def test_an_epoch_of_changed_pages_stands_beside_the_one_before(
    shard: HostShard, path: Path
) -> None:
    shard.open(Source(str(path), 70, 7), HELD, (7, None))
    rows = Rows(np.array([0, 17]), random_pages(2, 70, seed=1))
    shard.change((7, None), rows, (8, None))
    after = PAGES.copy()
    after[[512, 529]] = rows.pages
    assert np.array_equal(shard.answer(job(8), HELD).pages, of_range(after, HELD))
    assert np.array_equal(shard.answer(job(7), HELD).pages, of_range(PAGES, HELD))
    shard.drop((7, None))
    shard.drop((7, None))
    assert shard.versions() == ((8, None),)
    with pytest.raises(ShardMismatchError, match="must have epoch 7, and has epoch 8"):
        shard.answer(job(7), HELD)


def test_an_epoch_is_opened_from_a_file_and_changed_pages(shard: HostShard, path: Path) -> None:
    rows = Rows(np.array([3]), random_pages(1, 70, seed=2))
    later = Rows(np.array([2, 3]), random_pages(2, 70, seed=3))
    shard.open(Source(str(path), 70, 9), HELD, (9, None), rows=rows.then(later))
    after = PAGES.copy()
    after[[514, 515]] = later.pages
    assert np.array_equal(shard.answer(job(9), HELD).pages, of_range(after, HELD))


def test_the_next_epoch_may_come_from_another_file(
    shard: HostShard, path: Path, tmp_path: Path
) -> None:
    shard.open(Source(str(path), 70, 7), HELD, (7, None))
    after = random_pages(1301, 70, seed=5)
    after.tofile(tmp_path / "next.bin")
    shard.open(Source(str(tmp_path / "next.bin"), 70, 8), HELD, (8, None))
    assert np.array_equal(shard.answer(job(8), HELD).pages, of_range(after, HELD))
    assert np.array_equal(shard.answer(job(7), HELD).pages, of_range(PAGES, HELD))


def test_pages_that_a_file_does_not_have_are_refused_with_both_numbers(
    shard: HostShard, path: Path
) -> None:
    with pytest.raises(ShardMismatchError, match=r"must have pages 1024 to 2047.* 1301 pages"):
        shard.open(Source(str(path), 70, 7), ShardRange(1024, 1024), (7, None))
    with pytest.raises(FileNotFoundError):
        shard.open(Source(f"{path}.none", 70, 7), HELD, (7, None))


def test_sealed_pages_are_proved_by_the_nodes_above_them(
    shard: HostShard, path: Path, tmp_path: Path
) -> None:
    sealed = tmp_path / "sealed.table"
    seal_file(path, sealed, page_size=320)
    facts = shard.open(Source(str(sealed), None, 7), ShardRange(0, facts_pages(sealed)), (7, None))
    proof = shard.prove((7, None))
    assert proof is not None
    assert proof.cap is not None
    assert np.array_equal(proof.cap, read_cap(sealed))
    assert facts.digest == proof.digest


def test_a_wrong_page_of_sealed_pages_is_refused(
    shard: HostShard, path: Path, tmp_path: Path
) -> None:
    sealed = tmp_path / "sealed.table"
    seal_file(path, sealed, page_size=320)
    content = bytearray(sealed.read_bytes())
    content[4096 + 17] ^= 1
    sealed.write_bytes(content)
    with pytest.raises(TableFileError, match="altered: its pages do not have the siblings"):
        shard.open(Source(str(sealed), None, 7), ShardRange(0, facts_pages(sealed)), (7, None))


def facts_pages(path: Path) -> int:
    return Source(str(path), None, 0).open().table.num_pages


def test_a_table_says_its_page_size_itself(path: Path, tmp_path: Path) -> None:
    sealed = tmp_path / "sealed.table"
    seal_file(path, sealed, page_size=320)
    with pytest.raises(ValueError, match=r"page_size must be 320, which .* says, not 70"):
        Source(str(sealed), 70, 7).open()


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_the_gpus_of_a_host_share_its_pages(tmp_path: Path, gpu: StandIn, device: str) -> None:
    gpu.set(devices=2)
    pages = random_pages(2100, 16)
    pages.tofile(tmp_path / "pages.bin")
    held = ShardRange(512, 1588)
    queries = mg.make_queries(random_rows(3, 2, 2100), 2100)[0]
    keys = b"".join(key for query in queries for key in query.keys)
    rows = Rows(np.array([0, 1587]), random_pages(2, 16, seed=1))
    shard = HostShard(device)
    facts = shard.open(Source(str(tmp_path / "pages.bin"), 16, 7), held, (7, None))
    assert facts.device == "cuda:0,cuda:1"
    shard.change((7, None), rows, (8, None))
    after = pages.copy()
    after[[512, 2099]] = rows.pages
    for epoch, table in ((7, pages), (8, after)):
        others = table.copy()
        others[: held.first] = 0
        part = shard.answer(Pass(5, epoch, None, keys, 3, 2), held)
        assert np.array_equal(part.pages, naive_answers(others, queries))
    shard.close()
