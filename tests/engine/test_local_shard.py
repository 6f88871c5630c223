"""Shards in this process: engines over slices, each with a thread of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from morphogen.engine.local_shard import LocalShard
from morphogen.engine.sharded import ShardedEngine
from morphogen.sharding import plan_shards
from naive import naive_answers, random_pages, random_rows

SECONDS = 60  # only a failed test waits this long


def local_shards(pages: mg.PageMatrix, shards: int, replicas: int = 1) -> list[list[LocalShard]]:
    return [
        [
            LocalShard(mg.open_engine(pages.slice(one.first, one.count), "cpu", threads=1))
            for _ in range(replicas)
        ]
        for one in plan_shards(pages.num_pages, shards)
    ]


def open_local(
    pages: mg.PageMatrix, shards: int, replicas: int = 1, **options: Any
) -> ShardedEngine:
    return ShardedEngine(local_shards(pages, shards, replicas), pages.table, **options)


@pytest.mark.parametrize("shape", [(4096, 16), (4099, 33), (513, 4096), (1, 5)], ids=str)
@pytest.mark.parametrize("replicas", [1, 2])
def test_shards_in_this_process_equal_one_engine(shape: tuple[int, int], replicas: int) -> None:
    array = random_pages(*shape)
    pages = mg.PageMatrix(array)
    for shards in {min(shards, -(-shape[0] // 512)) for shards in (1, 2, 4, 8)}:
        with open_local(pages, shards, replicas) as engine:
            for total in (0, 1, 2, 7, 32):
                queries = mg.make_queries(random_rows(total, 3, shape[0]), shape[0])[total % 2]
                found = engine.answer(queries, max_micro_batch=5)
                assert np.array_equal(found.pages, naive_answers(array, queries))


def test_a_short_last_page_of_a_file_is_answered(tmp_path: Path) -> None:
    (tmp_path / "pages").write_bytes(bytes(random_pages(1, 1200 * 16 + 5)))
    pages = mg.PageMatrix.open(tmp_path / "pages", page_size=16)
    queries = list(mg.make_query([0, 1199, 1200], 1201))
    with open_local(pages, 3) as engine:
        found = engine.answer(queries).pages
    assert [bytes(page) for page in found[0] ^ found[1]] == [
        bytes(pages[at]) for at in (0, 1199, 1200)
    ]
