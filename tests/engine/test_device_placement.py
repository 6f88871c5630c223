"""The pages of each of several devices: even parts, which only a lack of memory makes uneven."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

import morphogen as mg
from morphogen.engine.devices.placement import place_pages, share_out
from morphogen.sharding import ShardRange

BESIDE = (16 << 20) + 16 * 48  # bytes that a GPU needs besides pages of 40 bytes
LEAF = 512 * 48


def placed(num_pages: int, *free: int | None) -> list[tuple[int, int] | None]:
    """First page and number of pages of each device, with so many bytes more than a GPU needs."""
    names = [f"cuda:{at}" for at in range(len(free))]
    room = [None if count is None else BESIDE + count for count in free]
    return [
        None if held is None else (held.first, held.count)
        for held in place_pages(num_pages, 40, [*zip(names, room, strict=True)])
    ]


@given(st.integers(0, 60), st.lists(st.integers(0, 20), min_size=1, max_size=8))
def test_no_device_has_more_than_another_that_has_room_left(leaves: int, rooms: list[int]) -> None:
    counts = share_out(leaves, rooms)
    assert sum(counts) == min(leaves, sum(rooms))
    for count, room in zip(counts, rooms, strict=True):
        assert 0 <= count <= room
        if count < room:
            assert max(counts) <= count + 1


def test_devices_with_room_enough_take_equal_parts_whatever_their_memory() -> None:
    assert placed(4 * 512, 100 * LEAF, 3 * LEAF) == [(0, 1024), (1024, 1024)]
    assert placed(4 * 512, None, 100 * LEAF) == [(0, 1024), (1024, 1024)]


def test_others_share_what_a_device_has_no_room_for() -> None:
    assert placed(9 * 512, 9 * LEAF, LEAF, 9 * LEAF) == [(0, 2048), (2048, 512), (2560, 2048)]


def test_pages_that_fit_all_devices_together_fit() -> None:
    assert placed(6 * 512, LEAF, 3 * LEAF, 2 * LEAF) == [(0, 512), (512, 1536), (2048, 1024)]


def test_a_short_last_leaf_needs_only_its_own_pages() -> None:
    assert placed(1024 + 7, 2 * LEAF, 7 * 48) == [(0, 1024), (1024, 7)]
    with pytest.raises(mg.DeviceOutOfMemoryError):
        placed(1024 + 7, 2 * LEAF, 7 * 48 - 1)


def test_a_device_without_room_for_a_leaf_gets_no_pages() -> None:
    assert placed(3 * 512, 0, 5 * LEAF, LEAF - 1) == [None, (0, 1536), None]
    assert placed(3 * 512, -BESIDE, 5 * LEAF, 5 * LEAF) == [None, (0, 512), (512, 1024)]


def test_pages_that_do_not_fit_are_refused_with_what_is_needed_and_free() -> None:
    with pytest.raises(mg.DeviceOutOfMemoryError) as caught:
        placed(3 * 512, LEAF, LEAF)
    assert str(caught.value) == (
        f"1536 pages of 40 bytes need {3 * LEAF} bytes of memory, and {BESIDE} more on each "
        f"device, in parts of 512 pages; free are {BESIDE + LEAF} on cuda:0, {BESIDE + LEAF} on "
        "cuda:1"
    )
    assert isinstance(caught.value, MemoryError)


def test_more_devices_than_leaves_are_refused() -> None:
    message = r"^3 devices cannot share 1024 pages: each takes 512 or more, so 2 can$"
    with pytest.raises(ValueError, match=message):
        placed(1024, LEAF, LEAF, LEAF)
    assert placed(1025, LEAF, LEAF, LEAF) == [(0, 512), (512, 512), (1024, 1)]


@given(
    st.integers(1, 20_000),
    st.lists(st.none() | st.integers(0, 20 * LEAF), min_size=1, max_size=8),
)
def test_every_page_has_one_device_which_has_room_for_it(
    num_pages: int, free: list[int | None]
) -> None:
    if len(free) > -(-num_pages // 512):
        return
    try:
        parts = placed(num_pages, *free)
    except mg.DeviceOutOfMemoryError:
        assert None not in free
        whole = sum((count or 0) // LEAF for count in free)
        assert whole < -(-num_pages // 512)
        return
    held = [ShardRange(*part) for part in parts if part is not None]
    assert held[0].first == 0
    assert [one.stop for one in held[:-1]] == [one.first for one in held[1:]]
    assert held[-1].stop == num_pages
    for part, count in zip(parts, free, strict=True):
        if part is not None and count is not None:
            assert part[1] * 48 <= count
