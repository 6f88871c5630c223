"""What a sharded engine refuses at its start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import morphogen as mg
from fake_shards import World, fakes, sharded
from morphogen.pages import TableShape
from morphogen.sharding import ShardRange
from naive import naive_answers, random_pages, random_rows

ARRAY = random_pages(2000, 24)


def test_a_missing_range_is_refused() -> None:
    world = World()
    shards = fakes(world, ARRAY, 4)
    message = r"^no shard has pages 512 to 1023: shard 1 begins at page 1024$"
    with pytest.raises(ValueError, match=message):
        sharded(world, [shards[0], *shards[2:]])
    with pytest.raises(ValueError, match=r"^no shard has pages 1536 to 1999"):
        sharded(world, shards[:3])


def test_two_shards_of_one_range_are_refused() -> None:
    world = World()
    shards, others = fakes(world, ARRAY, 4), fakes(world, ARRAY, 4)
    message = r"^shard 2 must begin at page 1024, .*, not at page 512$"
    with pytest.raises(ValueError, match=message):
        sharded(world, [*shards[:2], others[1], *shards[2:]])


def test_ranges_that_overlap_are_refused() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2)
    shards[1][0].range = ShardRange(512, 1488)
    with pytest.raises(ValueError, match=r"^shard 1 must begin at page 1024, .*, not at page 512$"):
        sharded(world, shards)


def test_replicas_of_different_ranges_are_refused() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 2)
    shards[0][1] = shards[1][1]
    message = r"0\.0 has pages 0 to 1023, 1\.1 has pages 1024 to 1999$"
    with pytest.raises(ValueError, match=message):
        sharded(world, shards)


def test_one_replica_in_two_places_is_refused() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 2)
    shards[0][1] = shards[0][0]
    with pytest.raises(ValueError, match=r"^0\.0 must be one replica of one shard, not two$"):
        sharded(world, shards)


def test_a_shard_without_a_replica_is_refused() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2)
    with pytest.raises(ValueError, match=r"^shard 1 must have a replica, not none$"):
        sharded(world, [shards[0], []])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TableShape(2000, 25), r"^page_size must be 24, not 25 as 1\.0 has$"),
        (TableShape(1999, 24), r"^num_pages must be 2000, not 1999 as 1\.0 has$"),
        (TableShape(2000, 24, 7), r"^epoch must be 0, not 7 as 1\.0 has$"),
    ],
)
def test_a_shard_of_another_table_is_refused(table: TableShape, message: str) -> None:
    world = World()
    shards = fakes(world, ARRAY, 2)
    shards[1][0].table = table
    with pytest.raises(mg.ShardMismatchError, match=message):
        sharded(world, shards)
    engine = sharded(world, fakes(world, ARRAY, 2))
    with pytest.raises(mg.ShardMismatchError, match=message):
        engine.replace_replica(1, 0, shards[1][0])


def test_a_shard_of_another_root_is_refused() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, root=b"\x01\x02")
    message = r"^0\.0 has epoch 0 of root 0102, not epoch 0 of root 03$"
    with pytest.raises(mg.ShardMismatchError, match=message):
        sharded(world, shards, root=b"\x03")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"timeout": 0}, ValueError, r"^timeout must be above 0 seconds, not 0$"),
        ({"hedge": -1.0}, ValueError, r"^hedge must be above 0 seconds, not -1\.0$"),
        ({"max_micro_batch": 0}, ValueError, r"^max_micro_batch must be 1 or more, not 0$"),
    ],
)
def test_options_that_no_engine_has(options: Any, error: type[Exception], message: str) -> None:
    world = World()
    with pytest.raises(error, match=message):
        sharded(world, fakes(world, ARRAY, 2), **options)


def test_shards_of_a_slice_cover_the_slice() -> None:
    world = World()
    whole = mg.PageMatrix(ARRAY)
    shards = fakes(world, ARRAY, 4)[1:3]
    pages = whole.slice(512, 1024)
    with sharded(world, shards, pages=pages) as engine:
        held = np.zeros_like(ARRAY)
        held[512:1536] = ARRAY[512:1536]
        queries = mg.make_queries(random_rows(3, 2, 2000), 2000)[0]
        assert np.array_equal(engine.answer(queries).pages, naive_answers(held, queries))
        assert engine.pages is pages
    with pytest.raises(ValueError, match=r"^shard 0 must begin at page 512"):
        sharded(world, fakes(world, ARRAY, 4), pages=pages)
