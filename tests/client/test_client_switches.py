"""A client of two real servers goes with them from epoch to epoch, and through a kill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from epoch_files import (
    PAGES,
    SECONDS,
    ReloadedServer,
    sealed_pages,
    write_delta,
    write_epoch,
    write_manifest,
)
from morphogen.client import Client
from morphogen.errors import TableMismatchError

pytest.importorskip("cryptography", reason="needs cryptography: pip install '.[sign]'")


class Operator:
    """A server over a folder of epochs of its own."""

    def __init__(self, party: int, folder: Path) -> None:
        self.party = party
        self.folder = folder
        folder.mkdir()
        self.owner = b""
        self.put(7)
        self.server = ReloadedServer(folder, party=party)
        self.url = self.server.url

    def put(self, epoch: int, *, signed: bool = True) -> None:
        """Put the file of an epoch there: a table, or a delta if its number is even."""
        table = self.folder.parent / f"made-{self.folder.name}-{epoch}.table"
        root = write_epoch(table, epoch)
        path = self.folder / f"words-{epoch}"
        if signed:
            self.owner = write_manifest(path.with_suffix(".manifest"), epoch, root=root)
        if epoch % 2:
            table.rename(path.with_suffix(".table"))
        else:
            write_delta(path.with_suffix(".delta"), epoch - 1, epoch)

    def publish(self, epoch: int, *, signed: bool = True) -> None:
        self.put(epoch, signed=signed)
        assert self.server.hang_up("reloaded")["to_epoch"] == epoch

    def kill(self) -> None:
        self.server.process.kill()
        self.server.stop()

    def start(self) -> None:
        port = str(urlsplit(self.url).port)
        self.server = ReloadedServer(self.folder, ("--port", port), party=self.party)


@contextmanager
def two_operators(folder: Path) -> Iterator[list[Operator]]:
    operators: list[Operator] = []
    try:
        for party in (0, 1):
            operators.append(Operator(party, folder / str(party)))
        yield operators
    finally:
        for operator in operators:
            operator.server.stop()


def connect(operators: list[Operator]) -> Client:
    urls = [operator.url for operator in operators]
    return Client(urls, owner=operators[0].owner, timeout=SECONDS, retries=100)


def assert_reads(reader: Client, epoch: int) -> None:
    wanted = [*range(PAGES), 3, 3]
    assert (reader.get(wanted) == sealed_pages(epoch)[wanted]).all()
    assert reader.info.epoch_id == epoch


@pytest.mark.slow
def test_a_client_goes_through_tables_and_deltas_a_kill_and_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphogen.client.rules.SECONDS_BETWEEN_NEWS", 0)
    with two_operators(tmp_path) as operators, connect(operators) as reader:
        assert_reads(reader, 7)
        for epoch in (8, 9, 10):
            one, other = operators if epoch % 2 else operators[::-1]
            one.publish(epoch)
            for _ in range(2):  # an answer tells of it, and the other has not got it yet
                assert_reads(reader, epoch - 1)
            other.publish(epoch)
            reader.get([0])
            assert_reads(reader, epoch)
        # What the other published meanwhile, a server takes up when it starts.
        operators[1].kill()
        operators[0].publish(11)
        operators[1].put(11)
        operators[1].start()
        reader.get([0])
        assert_reads(reader, 11)
        # An epoch that nobody signed is refused, and not read around.
        for operator in operators:
            operator.publish(12, signed=False)
        reader.get([0])
        for _ in range(2):
            with pytest.raises(TableMismatchError, match="the owner does not vouch for"):
                reader.get([0])
        for operator in operators:
            operator.publish(13)
        assert_reads(reader, 13)
