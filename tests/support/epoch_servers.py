"""Two servers that hold several epochs each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from fake_server import FakeServer, two_servers
from morphogen.client import Client
from naive import random_pages

Pair = tuple[FakeServer, FakeServer]
TABLES = {epoch: random_pages(50, 96, seed=epoch) for epoch in range(5, 11)}


@contextmanager
def servers_of(*epochs: list[int]) -> Iterator[Pair]:
    """Run two servers that hold these epochs, each list in the order of publishing."""
    with two_servers(TABLES[epochs[0][0]]) as servers:
        for server, held in zip(servers, epochs, strict=True):
            server.set_table(TABLES[held[0]], held[0])
            for epoch in held:
                server.publish(TABLES[epoch], epoch, keep=len(held))
        yield servers


def publish(servers: Pair, epoch: int, **options: Any) -> None:
    for server in servers:
        server.publish(TABLES[epoch], epoch, **options)


def keys(server: FakeServer) -> list[bytes]:
    return [
        key
        for seen in server.batches
        for query in msgspec.msgpack.decode(seen.body)["queries"]
        for key in query["keys"]
    ]


def assert_reads(reader: Client, epoch: int) -> None:
    assert (reader.get([4, 49]) == TABLES[epoch][[4, 49]]).all()
    assert reader.info.epoch_id == epoch
    assert reader.info.epochs is None
