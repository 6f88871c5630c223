"""The demo of an authenticated table: whether a password is among the breached ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

import morphogen.service.run  # noqa: F401 - fails here if the servers would
from morphogen.authentication import check_pages
from morphogen.client import Client
from morphogen.demo.passwords import (
    MOST_FOUND,
    find_in_list,
    make_passwords,
    prefix_of,
    read_list,
    write_list,
)
from morphogen.demo.relay import Relay
from morphogen.errors import IntegrityError
from morphogen.keyword.builder import TableBuilder
from morphogen.keyword.file import open_table
from morphogen.keyword.layout import TableLayout
from morphogen.progress import StagedProgress, stage
from morphogen.service.process import ServerProcess

ENTRIES = 1_000_000
COMPARED = 64  # lookups that are not shown, half of them misses
# In no list of ours, since our passwords are a word and an ending.
NOT_IN_LIST = ("correct horse battery staple", "Tr0ub4dor&3")
_AT_ONCE = 1 << 14  # lines that the builder takes at a time


@dataclass(frozen=True, slots=True)
class PasswordLookup:
    """One private lookup of a password.

    Attributes
    ----------
    password, prefix : str
        The password, and the beginning of its SHA-1, which was looked up.
    count : int or None
        How often it was found, by the servers; None for a miss.
    right : bool
        Whether the list says the same.
    milliseconds : float
    """

    password: str
    prefix: str
    count: int | None
    right: bool
    milliseconds: float


@dataclass(frozen=True, slots=True)
class ProofOfPage:
    """What proves one page that could hold a key.

    Attributes
    ----------
    page : int
    cap_node : int
        The node of the cap that the page's path leads to.
    cap_hash : str
        That node, in hexadecimal.
    proven : bool
        Whether the page's hash and its siblings lead to that node.
    """

    page: int
    cap_node: int
    cap_hash: str
    proven: bool


@dataclass(frozen=True, slots=True)
class BreachedResult:
    """The result of the demo.

    Attributes
    ----------
    entries, list_bytes : int
        Lines of the list, and its size.
    list_seconds, build_seconds : float
        The time to make the list, and to make the table of it, from the list's first line to the
        table's last byte.
    table_bytes, num_pages, page_size, value_size, proof_levels, cap_bytes : int
        Of the table.
    root : str
        The table's root in hexadecimal: what its owner publishes.
    load : float
        Entries for each slot.
    device : str
        Of the servers.
    lookups : tuple of PasswordLookup
        The lookups that are shown.
    sent, received : int
        Bytes that a client sends to each server and receives from it for one lookup, heads of HTTP
        included.
    proof : tuple of ProofOfPage
        Of the last lookup that is shown, a miss: the pages that could hold its key.
    compared, wrong : int
        Lookups that are not shown, and those of all lookups that differed from the list.
    lookup_ms : float
        The median time of those.
    refused : tuple of str
        What the client said when one server lied about a password in the list, and about one that
        is not in it; empty if the lie was not caught.
    """

    entries: int
    list_bytes: int
    list_seconds: float
    build_seconds: float
    table_bytes: int
    num_pages: int
    page_size: int
    value_size: int
    proof_levels: int
    cap_bytes: int
    root: str
    load: float
    device: str
    lookups: tuple[PasswordLookup, ...]
    sent: int
    received: int
    proof: tuple[ProofOfPage, ...]
    compared: int
    wrong: int
    lookup_ms: float
    refused: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every lookup gave what the list says, every page is proven, every lie refused."""
        return not self.wrong and all(proof.proven for proof in self.proof) and all(self.refused)

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return {**asdict(self), "ok": self.ok}


def run_breached_demo(
    entries: int = ENTRIES,
    *,
    page_size: int = 4096,
    device: str = "auto",
    progress: StagedProgress | None = None,
) -> BreachedResult:
    """Make a list, build a table of it, serve it twice, and look passwords up privately.

    Parameters
    ----------
    entries : int, optional
        Passwords in the list, 1 to `morphogen.demo.passwords.MAX_ENTRIES`.
    page_size : int, optional
        Bytes a page of the table.
    device : str, optional
        Of both servers, as `morphogen.open_engine` takes it.
    progress : callable, optional
        Called with the work done, the work in all, and the name of the stage.

    Returns
    -------
    BreachedResult

    Raises
    ------
    ValueError
        If entries or page_size is out of range.
    ServerError
        If a server does not start or fails.
    """
    report = progress if progress is not None else _silent
    with TemporaryDirectory(prefix="morphogen-demo-") as folder:
        source, path = Path(folder, "breached.txt"), Path(folder, "breached.table")
        started = perf_counter()
        write_list(source, entries, stage(report, "making the list"))
        listed = perf_counter()
        _build(source, path, page_size, report)
        built = perf_counter()
        opened = open_table(path)
        layout, tree = opened.layout, opened.tree
        assert layout is not None
        assert tree is not None
        known, compared = _choose(entries)
        with (
            _served(path, device, report) as relays,
            Client([relay.url for relay in relays], root=tree.root, verify=True) as client,
        ):
            looking = stage(report, "looking up")
            lookups = [_look_up(client, source, password) for password in (*known, *NOT_IN_LIST)]
            before = [(relay.sent, relay.received) for relay in relays]
            _look_up(client, source, known[0])
            after = [(relay.sent, relay.received) for relay in relays]
            proof = _prove(client, layout, tree.cap, lookups[-1].prefix)
            more = []
            for password in compared:
                more.append(_look_up(client, source, password))
                looking(len(more), len(compared))
            relays[1].lies = True
            refused = tuple(_refusal(client, password) for password in (known[0], NOT_IN_LIST[0]))
            return BreachedResult(
                entries=entries,
                list_bytes=source.stat().st_size,
                list_seconds=listed - started,
                build_seconds=built - listed,
                table_bytes=path.stat().st_size,
                num_pages=layout.num_pages,
                page_size=layout.page_size,
                value_size=layout.value_size,
                proof_levels=layout.proof_levels,
                cap_bytes=tree.cap.nbytes,
                root=tree.root.hex(),
                load=layout.entries / (layout.num_pages * layout.slots_per_page),
                device=client.info.device,
                lookups=tuple(lookups),
                sent=max(new[0] - old[0] for old, new in zip(before, after, strict=True)),
                received=max(new[1] - old[1] for old, new in zip(before, after, strict=True)),
                proof=proof,
                compared=len(more),
                wrong=sum(not lookup.right for lookup in [*lookups, *more]),
                lookup_ms=median(lookup.milliseconds for lookup in more),
                refused=refused,
            )


def _silent(done: int, total: int, name: str) -> None:
    pass


def _build(source: Path, path: Path, page_size: int, progress: StagedProgress) -> None:
    # A slot has room for every count. With shorter slots the table would be a fifth smaller, and a
    # lookup would ask for the pages of two or three slots.
    builder = TableBuilder(page_size=page_size, value_size=len(str(MOST_FOUND)))
    rows = read_list(source)
    while batch := list(islice(rows, _AT_ONCE)):
        builder.add_many(*zip(*batch, strict=True))
    builder.write(path, progress)


def _choose(entries: int) -> tuple[list[str], list[str]]:
    """Choose passwords of the list to show, and passwords to compare, half of them not in it."""
    shown = {1, 7, entries // 2, entries}
    compared = {1 + at * (entries - 1) // (COMPARED // 2) for at in range(COMPARED // 2)}
    made = {
        rank: password
        for rank, password in enumerate(islice(make_passwords(), entries), start=1)
        if rank in shown or rank in compared
    }
    known = [made[rank] for rank in sorted(compared & made.keys())]
    return (
        [made[rank] for rank in sorted(shown & made.keys())],
        [asked for password in known for asked in (password, password + "?")],
    )


@contextmanager
def _served(path: Path, device: str, progress: StagedProgress) -> Iterator[list[Relay]]:
    """Two servers of the table, each behind a relay that counts what a client sends and gets."""
    with ExitStack() as stack:
        relays = []
        for party in (0, 1):
            progress(party, 2, "starting the servers")
            server = stack.enter_context(ServerProcess(path, party, ("--device", device)))
            relays.append(stack.enter_context(Relay(server.url)))
        yield relays


def _look_up(client: Client, source: Path, password: str) -> PasswordLookup:
    prefix = prefix_of(password)
    started = perf_counter()
    value = client.lookup(prefix.encode())
    milliseconds = 1e3 * (perf_counter() - started)
    count = None if value is None else int(value)
    right = count == find_in_list(source, password)
    return PasswordLookup(password, prefix, count, right, milliseconds)


def _prove(
    client: Client, layout: TableLayout, cap: npt.NDArray[np.uint8], prefix: str
) -> tuple[ProofOfPage, ...]:
    """Check the pages that could hold a key once more, step by step."""
    indices = list(dict.fromkeys(layout.candidates(prefix.encode())))
    levels = layout.proof_levels
    return tuple(
        ProofOfPage(
            page=index,
            cap_node=index >> levels,
            cap_hash=cap[index >> levels].tobytes().hex(),
            proven=check_pages(page[np.newaxis], [index], cap, levels),
        )
        for index, page in zip(indices, client.get(indices), strict=True)
    )


def _refusal(client: Client, password: str) -> str:
    """Return what a client says instead of a result, and nothing if it gives one."""
    try:
        client.lookup(prefix_of(password).encode())
    except IntegrityError as error:
        return str(error)
    return ""
