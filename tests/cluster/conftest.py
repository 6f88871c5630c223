"""Fixtures of the tests of clusters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from connections import TLS_NAMES, Shard, certificates
from morphogen.cluster.channel import Channel
from morphogen.cluster.pass_server import PassServer


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
