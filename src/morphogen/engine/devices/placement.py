"""The pages that each of several devices takes: as even as their memory allows."""

from __future__ import annotations

from collections.abc import Sequence

from morphogen.dpf import PAGES_PER_LEAF
from morphogen.errors import DeviceOutOfMemoryError
from morphogen.sharding import ShardRange, plan_shards

# What a GPU needs besides pages: the kernels, what the driver rounds up, and in the size of pages
# the sums of two lanes, of 6 keys each, with their counters.
_BESIDE_BYTES = 16 << 20
_BESIDE_PAGES = 16
_VECTOR_BYTES = 16  # on a GPU a page is padded to whole vectors


def padded_size(page_size: int) -> int:
    """The bytes that a page takes on a GPU.

    Parameters
    ----------
    page_size : int
        Bytes of the page.

    Returns
    -------
    int
    """
    return -(-page_size // _VECTOR_BYTES) * _VECTOR_BYTES


def share_out(leaves: int, rooms: Sequence[int]) -> tuple[int, ...]:
    """Share leaves out as evenly as rooms allow.

    A pass lasts as long as its slowest part. So all take equal parts, whatever memory they would
    have left; only one with less room than that takes less, and the others share what it leaves.

    Parameters
    ----------
    leaves : int
        Leaves of 512 pages.
    rooms : sequence of int
        The most leaves that each device can take.

    Returns
    -------
    tuple of int
        Leaves of each device. They are fewer in all than ``leaves`` if the rooms are.
    """
    counts = [0] * len(rooms)
    left = leaves
    # The smallest room first: what an even part has more than it, those that follow share.
    for turn, device in enumerate(sorted(range(len(rooms)), key=rooms.__getitem__)):
        counts[device] = min(rooms[device], left // (len(rooms) - turn))
        left -= counts[device]
    return tuple(counts)


def check_leaves(num_pages: int, devices: int) -> int:
    """Refuse more devices than there are leaves of pages.

    Parameters
    ----------
    num_pages : int
        The pages to share.
    devices : int
        The devices that are to share them.

    Returns
    -------
    int
        The leaves, of 512 pages; the last may have fewer.

    Raises
    ------
    ValueError
        If a device would get none.
    """
    leaves = -(-num_pages // PAGES_PER_LEAF)
    if devices > leaves:
        raise ValueError(
            f"{devices} devices cannot share {num_pages} pages: each takes {PAGES_PER_LEAF} or "
            f"more, so {leaves} can"
        )
    return leaves


def place_pages(
    num_pages: int, page_size: int, free: Sequence[tuple[str, int | None]]
) -> tuple[ShardRange | None, ...]:
    """Place pages on devices.

    Parameters
    ----------
    num_pages, page_size : int
        The pages.
    free : sequence of (str, int or None)
        Of each device its name, for errors, and the bytes of its memory that are free; None for the
        CPU, which makes no copy.

    Returns
    -------
    tuple of (ShardRange or None)
        The pages of each device, in order. None for one that has no room for 512 of them, while the
        others have room for all.

    Raises
    ------
    ValueError
        If there are more devices than leaves of 512 pages.
    DeviceOutOfMemoryError
        If the pages do not fit all devices together.
    """
    leaves = check_leaves(num_pages, len(free))
    stride = padded_size(page_size)
    beside = _BESIDE_BYTES + _BESIDE_PAGES * stride
    whole = leaves * PAGES_PER_LEAF
    rooms = [whole if count is None else max(count - beside, 0) // stride for _, count in free]
    if rooms[-1]:
        rooms[-1] += whole - num_pages  # the last leaf may be a short one
    counts = share_out(leaves, [room // PAGES_PER_LEAF for room in rooms])
    if sum(counts) < leaves:
        listed = ", ".join(f"{count} on {name}" for name, count in free if count is not None)
        raise DeviceOutOfMemoryError(
            f"{num_pages} pages of {page_size} bytes need {num_pages * stride} bytes of memory, "
            f"and {beside} more on each device, in parts of {PAGES_PER_LEAF} pages; free are "
            f"{listed}"
        )
    parts = [count for count in counts if count]
    ranges = iter(plan_shards(num_pages, len(parts), weights=parts))
    return tuple(next(ranges) if count else None for count in counts)
