"""Connections of a cluster, with Ray's certificates or without, and a shard to be asked by them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import trustme

from morphogen.cluster.channel import Channel
from morphogen.cluster.connection import Connection
from morphogen.cluster.host_shard import HostShard
from morphogen.cluster.pass_server import PassServer
from morphogen.cluster.tls import tls_of_ray
from morphogen.engine.shards.transport import Part, Pass
from morphogen.sharding import ShardRange

HELD = ShardRange(512, 512)
SECRET = bytes(range(32))
TLS_NAMES = ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")


def certificates(folder: Path, authority: trustme.CA | None = None) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    authority = authority or trustme.CA()
    issued = authority.issue_cert("10.9.8.7")  # where nobody is: the secret tells who a shard is
    paths = [folder / name for name in ("cert", "key", "ca")]
    issued.cert_chain_pems[0].write_to_path(paths[0])
    issued.private_key_pem.write_to_path(paths[1])
    authority.cert_pem.write_to_path(paths[2])
    return {"RAY_USE_TLS": "1"} | dict(zip(TLS_NAMES, map(str, paths), strict=True))


def pair(environment: dict[str, str]) -> tuple[Connection, Connection]:
    """Both ends of a connection."""
    taken: SimpleQueue[Connection] = SimpleQueue()
    tls = tls_of_ray(environment, of_shard=True)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def take() -> None:
            taken.put(Connection.of(listening.accept()[0], SECRET, tls, 10.0))

        threading.Thread(target=take).start()
        port = listening.getsockname()[1]
        router = Connection.to(
            "127.0.0.1", port, SECRET, tls_of_ray(environment, of_shard=False), 10.0
        )
        return router, taken.get()


class Shard(HostShard):
    """Answers with the keys of a pass, as pages of one byte; or as a test has it answer."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.reply: Callable[[Pass], Any] = lambda job: np.frombuffer(job.keys, np.uint8)

    def answer(self, job: Pass, held: ShardRange) -> Part:
        pages = self.reply(job).reshape(1, 1, -1)
        return Part(job.number, held, job.epoch, job.root, pages)


def job_of(keys: bytes, number: int = 1) -> Pass:
    return Pass(number, 7, b"r" * 32, keys, 1, 1)


def ask(channel: Channel, keys: bytes) -> Any:
    told: SimpleQueue[Any] = SimpleQueue()
    channel.call(job_of(keys), HELD, told.put)
    return told.get()


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["plain", "tls"])
def tls(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """What Ray takes from the environment, of this process, too."""
    for name in ("RAY_USE_TLS", *TLS_NAMES):
        monkeypatch.delenv(name, raising=False)
    if request.param == "plain":
        return {}
    environment = certificates(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.fixture
def shard() -> Shard:
    return Shard()


@pytest.fixture
def server(shard: Shard, tls: dict[str, str], closing: ExitStack) -> PassServer:
    server = PassServer(shard, "127.0.0.1")
    closing.callback(server.close)
    return server


@pytest.fixture
def channel(server: PassServer, closing: ExitStack) -> Channel:
    channel = Channel("host-7")
    closing.callback(channel.close)
    channel.connect(server.address)
    return channel
