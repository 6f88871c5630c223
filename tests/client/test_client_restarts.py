"""A read goes through the restart of a server, and both servers see the same of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import morphogen.wire as wire
from fake_server import FakeServer, client, keyword_table, two_servers
from morphogen.client.rules import RETRIES, RetryPolicy
from morphogen.errors import MorphogenError
from server_faults import Fault, Reply, dropped, half, instead, problem

TABLE, LAYOUT, ITEMS = keyword_table()
RESTART_SECONDS = 3.0
Pair = tuple[FakeServer, FakeServer]


@pytest.mark.parametrize("extreme", [min, max])
def test_the_default_retries_go_on_for_longer_than_a_restart_takes(
    extreme: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", extreme)
    policy = RetryPolicy(RETRIES, backoff=0.1)
    times = [0.0]
    for attempt in range(RETRIES):
        times.append(times[-1] + policy.wait(attempt))
    # Whenever in the first seconds the server is back, an attempt follows before the time-out.
    assert any(RESTART_SECONDS <= time <= 10 - RESTART_SECONDS for time in times)
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= 1.5


def test_the_wait_does_not_grow_without_end() -> None:
    assert RetryPolicy(10**6, backoff=0.1).wait(10**6) <= 1.5


class Restart:
    """Brings a server back on its port while a client waits for its n-th attempt."""

    def __init__(self, server: FakeServer, attempts: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self._left = attempts
        monkeypatch.setattr(RetryPolicy, "wait", self._wait)

    def down(self) -> None:
        self.server.close()

    def _wait(self, attempt: int, retry_after: str | None = None) -> float:
        self._left -= 1
        if not self._left:
            old = self.server
            self.server = FakeServer(old.table, old.party, layout=old.layout, port=old.port)
        return 0.0


@pytest.mark.parametrize("amid", [False, True])
@pytest.mark.parametrize("party", [0, 1])
def test_a_lookup_during_a_restart_succeeds(
    party: int, amid: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two_servers(TABLE, layout=LAYOUT) as servers:
        restart = Restart(servers[party], RETRIES, monkeypatch)
        with client(servers) as reader:
            if amid:

                def end(reply: Reply) -> Reply:
                    restart.down()
                    return dropped(reply)

                servers[party].then(end)
            else:
                restart.down()
            assert reader.lookup(b"key 7") == ITEMS[b"key 7"]
            (back,) = restart.server.batches
            restart.server.close()
            (other,) = servers[1 - party].batches
            assert len(back.body) == len(other.body)
            assert [seen.body for seen in servers[party].batches] == [back.body] * amid


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [dropped],
        [half, dropped, half],
        [instead(problem(503))] * 3,
        [instead(problem(429, Retry_After="0"))] * RETRIES,
        [instead(problem(500))],
        [instead(problem(409))],
        [instead(Reply(200, {"Content-Type": wire.MSGPACK}, b"\xc1"))],
    ],
    ids=range(8),
)
@pytest.mark.parametrize("party", [0, 1])
def test_both_servers_get_the_same_messages_whatever_one_does(
    party: int, faults: list[Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else a server that fails on purpose would see of the other, or show it, what it made happen.
    def messages(server: FakeServer) -> list[tuple[Any, ...]]:
        once = dict.fromkeys((seen.method, seen.path, seen.body) for seen in server.seen)
        return [(method, path, len(body)) for method, path, body in once]

    with two_servers(TABLE, layout=LAYOUT) as servers, client(servers) as reader:
        servers[party].then(*faults)
        for _ in range(2):
            with suppress(MorphogenError):
                reader.lookup_many(list(ITEMS)[:20])
        assert messages(servers[0]) == messages(servers[1])
        assert len(servers[1 - party].batches) <= 3
