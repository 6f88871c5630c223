"""What is compared before a cluster serves: that all shards have the same table, each page once."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from morphogen.authentication.hashing import Bytes
from morphogen.authentication.shape import Shape
from morphogen.authentication.tree import Tree
from morphogen.checks import as_int, check_range
from morphogen.cluster.host_shard import ShardFacts
from morphogen.cluster.source import OpenedSource, blocks_of
from morphogen.dpf import PAGES_PER_LEAF
from morphogen.errors import ShardMismatchError
from morphogen.keyword.header import altered
from morphogen.sharding import ShardRange, check_cover, plan_shards


def plan_ranges(opened: OpenedSource, shards: int) -> tuple[ShardRange, ...]:
    """Cut a table into ranges that shards can answer for, and prove.

    Parameters
    ----------
    opened : OpenedSource
        The table.
    shards : int
        Ranges.

    Returns
    -------
    tuple of ShardRange
        In order, each of whole nodes of the cap.

    Raises
    ------
    TypeError, ValueError
        If shards is no int, or more than there are leaves of keys or nodes of the cap.
    """
    pages, node = opened.table.num_pages, opened.pages_per_node
    if node <= PAGES_PER_LEAF:
        return plan_shards(pages, shards)
    nodes = -(-pages // node)
    number = as_int("shards", shards)
    check_range(f"shards of a table of {nodes} nodes of {node} pages in its cap", number, 1, nodes)
    # As many leaves as there are nodes, and then larger.
    scale = node // PAGES_PER_LEAF
    planned = plan_shards(nodes * PAGES_PER_LEAF, number)
    stops = [min(one.stop * scale, pages) for one in planned]
    return tuple(
        ShardRange(one.first * scale, stop - one.first * scale)
        for one, stop in zip(planned, stops, strict=True)
    )


def check_facts(
    opened: OpenedSource,
    ranges: Sequence[ShardRange],
    facts: Sequence[Sequence[ShardFacts]],
    release: str,
) -> None:
    """Refuse shards that do not have the table between them, each range as often as it should be.

    Parameters
    ----------
    opened : OpenedSource
        The table, as the router finds it.
    ranges : sequence of ShardRange
        Those that the shards should have.
    facts : sequence of sequence of ShardFacts
        For each shard, what each replica says.
    release : str
        The version of this package on the router.

    Raises
    ------
    ShardMismatchError
        If one has another page size, number of pages, epoch, root, digest, range or release, or two
        are one process.
    ValueError
        If the ranges are not all pages, each once.
    """
    table = opened.table
    expected = {
        "num_pages": table.num_pages,
        "page_size": table.page_size,
        "epoch": table.epoch,
        "root": _hex(opened.root),
    }
    seen: dict[tuple[str, int], str] = {}
    for number, replicas in enumerate(facts):
        for at, one in enumerate(replicas):
            who = f"shard {number}, replica {at} on {one.host}"
            has = {
                "num_pages": one.table.num_pages,
                "page_size": one.table.page_size,
                "epoch": one.table.epoch,
                "root": _hex(one.root),
            }
            for name, value in expected.items():
                _require(who, name, value, has[name])
            _require(who, "release", release, one.release)
            first = replicas[0]
            if one.digest is not None and first.digest is not None:
                _require(who, "digest", _hex(first.digest), _hex(one.digest))
            _require(who, "range", str(first.range), str(one.range))
            other = seen.setdefault((one.host, one.pid), who)
            if other != who:
                raise ShardMismatchError(
                    f"{who} must have a process of its own, not that of {other}"
                )
    held = [replicas[0].range for replicas in facts]
    check_cover(held, ShardRange(0, table.num_pages))
    for number, (planned, given) in enumerate(zip(ranges, held, strict=True)):
        _require(f"shard {number}", "range", str(planned), str(given))


def tree_of_caps(opened: OpenedSource, caps: Sequence[Bytes]) -> Tree:
    """Put together what the shards' pages hash to, and compare it with the root.

    No host has read the whole file.

    Parameters
    ----------
    opened : OpenedSource
        An authenticated table.
    caps : sequence of numpy.ndarray
        uint8 (nodes, 32): the nodes of each shard, in order.

    Returns
    -------
    Tree
        The cap and the root.

    Raises
    ------
    TableFileError
        If the root is not that of the header.
    """
    header = opened.header
    assert header is not None
    shape = Shape(header.num_pages, header.page_size, header.proof_levels)
    cap = np.concatenate(caps)
    root = shape.root(cap, header.authenticated_layout)
    if root != header.root:
        raise altered(
            opened.source.path,
            f"the shards' pages have the root {root.hex()}, not that of its header, "
            f"{_hex(header.root)}",
        )
    return Tree(cap, root)


def digest_of_ranges(opened: OpenedSource, ranges: Sequence[ShardRange]) -> tuple[str, list[bytes]]:
    """The SHA-256 of all pages of the router's file, and of those of each range.

    Only a table that is authenticated spares the router this.

    Parameters
    ----------
    opened : OpenedSource
        The table.
    ranges : sequence of ShardRange
        In order, all pages.

    Returns
    -------
    digest : str
        Hexadecimal.
    digests : list of bytes
        Of each range.
    """
    whole, digests = sha256(), []
    for one in ranges:
        pages = opened.pages.slice(one.first, one.count)
        part = sha256()
        for block in blocks_of(pages):
            whole.update(block)
            part.update(block)
        digests.append(part.digest())
    return whole.hexdigest(), digests


def check_digests(
    opened: OpenedSource, ranges: Sequence[ShardRange], facts: Sequence[Sequence[ShardFacts]]
) -> str:
    """Compare the shards' pages with the router's own file.

    Parameters
    ----------
    opened : OpenedSource
        A table that is not authenticated.
    ranges : sequence of ShardRange
        In order, all pages.
    facts : sequence of sequence of ShardFacts
        For each shard, what each replica says.

    Returns
    -------
    str
        SHA-256 of all pages, hexadecimal.

    Raises
    ------
    ShardMismatchError
        If a shard has other pages.
    TableFileError
        If the file's header states another digest.
    """
    digest, digests = digest_of_ranges(opened, ranges)
    for number, (expected, replicas) in enumerate(zip(digests, facts, strict=True)):
        for at, one in enumerate(replicas):
            who = f"shard {number}, replica {at} on {one.host}"
            _require(who, "digest", _hex(expected), _hex(one.digest))
    if opened.header is not None and digest != opened.header.digest.hex():
        raise altered(opened.source.path, "its pages do not have their SHA-256")
    return digest


def _require(who: str, name: str, expected: object, given: object) -> None:
    if given != expected:
        raise ShardMismatchError(f"{who} must have the {name} {expected}, not {given}")


def _hex(value: bytes | None) -> str:
    return "none" if value is None else value.hex()
