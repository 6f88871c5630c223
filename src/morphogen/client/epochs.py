"""The epochs that two servers offer, and the one of them that a client reads."""

from __future__ import annotations

import re
from collections.abc import Sequence

import morphogen.dpf as dpf
import morphogen.wire as wire
from morphogen.authentication import num_cap_nodes
from morphogen.authentication.hashing import HASH_BYTES
from morphogen.client.addresses import PARTIES, ServerAddress
from morphogen.errors import EpochMismatchError, ServerError, TableMismatchError
from morphogen.pages import MAX_PAGE_SIZE
from morphogen.planner import MAX_KEYS_PER_QUERY
from morphogen.wire import TableInfo

MAX_OFFERS = 16  # epochs that one server may offer
MAX_EPOCH = 2**63 - 1
Offers = Sequence[TableInfo]


def check_offers(info: TableInfo, url: str) -> list[TableInfo]:
    """Check that what a server says of its epochs is possible at all.

    Returns
    -------
    list of TableInfo
        The description of each epoch that it offers, the highest first.

    Raises
    ------
    ServerError
        If not; the message names the field, what is allowed and what the server said.
    """
    if info.epochs is not None:
        count = len(info.epochs)
        if not 1 <= count <= MAX_OFFERS:
            raise ServerError(f"{url}: epochs must be 1 to {MAX_OFFERS}, not {count}")
        if len({epoch.epoch_id for epoch in info.epochs}) < count:
            raise ServerError(f"{url}: epochs has one epoch twice")
        if not any(
            all(getattr(epoch, name) == getattr(info, name) for name in epoch.__struct_fields__)
            for epoch in info.epochs
        ):
            raise ServerError(f"{url}: epochs does not have the current epoch as it is described")
    return [check_info(offer, url) for offer in wire.offers(info)]


def check_info(info: TableInfo, url: str) -> TableInfo:
    """Check that the description of one epoch is possible at all.

    Raises
    ------
    ServerError
        As from `check_offers`.
    """
    for name, low, high in (
        ("format_version", wire.FORMAT_VERSION, wire.FORMAT_VERSION),
        ("party", 0, PARTIES - 1),
        ("num_pages", 1, dpf.MAX_PAGES),
        ("page_size", 1, MAX_PAGE_SIZE),
        ("keys_per_query", 1, MAX_KEYS_PER_QUERY),
        ("epoch_id", 0, MAX_EPOCH),
    ):
        value = getattr(info, name)
        if not low <= value <= high:
            # A large number may be as long as a key, and be one.
            given = f", not {value}" if abs(value) < 2**32 else ""
            raise ServerError(f"{url}: {name} must be in {low}..{high}{given}")
    if not re.fullmatch(r"[0-9a-f]{64}", info.digest):
        raise ServerError(f"{url}: digest must be 64 hexadecimal digits")
    if info.manifest is not None and not re.fullmatch(r"[0-9a-f]{512}", info.manifest):
        raise ServerError(f"{url}: manifest must be 512 hexadecimal digits")
    if fault := _root_fault(info):
        raise ServerError(f"{url}: {fault}")
    return info


def _root_fault(info: TableInfo) -> str:
    """What cannot be of the root that a server states, if it states one."""
    levels = info.proof_levels
    if info.root is None and levels is None:
        return ""
    if info.root is None or levels is None:
        return "it states a root without proof levels, or these without a root"
    if info.root != info.digest:
        return "root must be the digest"
    try:
        num_cap_nodes(info.num_pages, levels)
    except ValueError:
        return "proof_levels is more than the tree over its pages has"
    return "" if info.page_size > HASH_BYTES * levels else "its pages are all proof levels"


def agree(
    offers: tuple[Offers, Offers],
    addresses: Sequence[ServerAddress],
    known: TableInfo | None,
    root: bytes | None = None,
) -> tuple[tuple[TableInfo, TableInfo], str]:
    """Choose the epoch to read: the highest that both servers offer alike, none below the last.

    A higher one about which they differ is passed over. That hides nothing that a server which lies
    could not hide by offering no such epoch, and an operator's error leaves clients what both have.

    Parameters
    ----------
    offers : tuple of sequences of TableInfo
        What each server offers, in the order of the URLs, found possible.
    addresses : sequence of ServerAddress
        The servers.
    known : TableInfo or None
        The description that was agreed before.
    root : bytes, optional
        The only root that the user accepts: an epoch that has it goes before others.

    Returns
    -------
    infos : tuple of (TableInfo, TableInfo)
        The description of the epoch by each server.
    passed_over : str
        How they differ about a higher epoch; empty if they do not.

    Raises
    ------
    ServerError
        If both say that they are the same party.
    EpochMismatchError
        If they have no such epoch in common: one of them may be about to follow.
    TableMismatchError
        If the pages differ under each epoch that they have in common, or one server changed the
        known one.
    """
    urls = f"{addresses[0].url} and {addresses[1].url}"
    if (party := offers[0][0].party) == offers[1][0].party:
        raise ServerError(
            f"{urls} both say that they are party {party}: one must be party 0 and the other "
            "party 1"
        )
    one, other = ({info.epoch_id: info for info in infos} for infos in offers)
    if known is not None:
        for server in (one, other):
            now = server.get(known.epoch_id)
            if now is not None and (differs := _difference(known, now)):
                raise TableMismatchError(
                    f"the servers changed the table, but not its epoch {known.epoch_id}: {differs}"
                )
    common = sorted(one.keys() & other.keys(), reverse=True)
    if not common:
        raise EpochMismatchError(
            f"the servers have different epochs: {addresses[0].url} has {_listed(one)}, "
            f"{addresses[1].url} has {_listed(other)}"
        )
    allowed = [epoch for epoch in common if known is None or epoch >= known.epoch_id]
    if known is not None and not allowed:
        raise EpochMismatchError(
            f"both servers have epochs up to {common[0]} only, and epoch {known.epoch_id} was "
            "read before"
        )
    passed_over = ""
    alike = []
    for epoch in allowed:
        if not (differs := _difference(one[epoch], other[epoch])):
            alike.append(epoch)
        elif not (alike or passed_over):
            passed_over = (
                f"the servers disagree about the table of epoch {epoch}: {differs}, at {urls}"
            )
    if not alike:
        raise TableMismatchError(passed_over)
    pinned = (epoch for epoch in alike if root is not None and one[epoch].root == root.hex())
    epoch = next(pinned, alike[0])
    return (one[epoch], other[epoch]), passed_over


def _listed(epochs: dict[int, TableInfo]) -> str:
    return ", ".join(map(str, epochs))


def _difference(one: TableInfo, other: TableInfo) -> str:
    if (one.root is None) != (other.root is None):
        return "a root is stated by one, and left out by the other"
    for name in ("num_pages", "page_size", "keys_per_query", "proof_levels", "digest"):
        was, now = getattr(one, name), getattr(other, name)
        if was != now:
            return f"{name} differs" if name == "digest" else f"{name} is {was} and {now}"
    return "its keyword layout differs" if one.table != other.table else ""
