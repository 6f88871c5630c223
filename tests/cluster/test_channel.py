"""Passes go to a shard's process and parts come back, between ends that know a secret."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from connections import (
    HELD,
    SECRET,
    Shard,
    ask,
    certificates,
    channel,
    closing,
    job_of,
    server,
    shard,
    tls,
)
from morphogen.cluster.channel import Address, Channel
from morphogen.cluster.connection import Connection
from morphogen.cluster.pass_server import PassServer
from morphogen.cluster.process import ProcessGoneError
from morphogen.cluster.tls import Tls, tls_of_ray
from morphogen.engine.shards.transport import Pass
from morphogen.errors import ShardMismatchError, ShardUnavailableError

__all__ = ["channel", "closing", "server", "shard", "tls"]

# Passes and parts


@pytest.mark.parametrize("size", [0, 1, 98_304, (1 << 20) + 1, 9 << 20])
def test_a_part_comes_back_whole(channel: Channel, size: int) -> None:
    keys = np.random.default_rng(size).bytes(size)
    part = ask(channel, keys)
    assert (part.number, part.range, part.epoch, part.root) == (1, HELD, 7, b"r" * 32)
    assert part.pages.tobytes() == keys


def test_passes_that_come_before_the_connection_wait_for_it(
    server: PassServer, closing: ExitStack
) -> None:
    channel = Channel("host-7")
    closing.callback(channel.close)
    told: SimpleQueue[Any] = SimpleQueue()
    for number in range(3):
        channel.call(job_of(bytes([number]), number), HELD, told.put)
    assert told.empty()
    channel.connect(server.address)
    assert sorted(told.get().pages.item() for _ in range(3)) == [0, 1, 2]


def test_a_pass_does_not_wait_for_the_one_before(channel: Channel, shard: Shard) -> None:
    held = threading.Event()

    def reply(job: Pass) -> Any:
        if job.keys == b"slow":
            held.wait()
        return np.frombuffer(job.keys, np.uint8)

    shard.reply = reply
    slow: SimpleQueue[Any] = SimpleQueue()
    channel.call(job_of(b"slow"), HELD, slow.put)
    assert ask(channel, b"fast").pages.tobytes() == b"fast"
    assert slow.empty()
    held.set()
    assert slow.get().pages.tobytes() == b"slow"


def test_each_of_many_callers_gets_its_own_part(channel: Channel) -> None:
    wrong: list[int] = []

    def call(number: int) -> None:
        for size in (1, 70_000):
            keys = bytes([number]) * size
            if ask(channel, keys).pages.tobytes() != keys:
                wrong.append(number)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_an_error_of_the_shard_is_that_pass_s_alone(channel: Channel, shard: Shard) -> None:
    def refuse(job: Pass) -> Any:
        raise ShardMismatchError("this shard has epoch 6")

    answering, shard.reply = shard.reply, refuse
    error = ask(channel, b"keys")
    assert type(error) is ShardMismatchError
    assert str(error) == "this shard has epoch 6"
    shard.reply = answering
    assert ask(channel, b"keys").pages.tobytes() == b"keys"


class OddError(Exception):
    """Like one of a library that the router's host does not have."""

    times = 0

    def __reduce__(self) -> Any:
        return unpickle_odd, ()


def unpickle_odd() -> OddError:
    OddError.times += 1
    if OddError.times % 2 == 0:  # at the router, after the shard has tried it
        raise ModuleNotFoundError("No module named 'odd'")
    return OddError()


def test_an_error_that_the_router_cannot_read_is_that_pass_s_alone(
    channel: Channel, shard: Shard
) -> None:
    def refuse(job: Pass) -> Any:
        raise OddError

    answering, shard.reply = shard.reply, refuse
    error = ask(channel, b"keys")
    assert type(error) is ShardUnavailableError
    assert str(error) == (
        "host-7 told what cannot be read here: ModuleNotFoundError: No module named 'odd'"
    )
    shard.reply = answering
    assert ask(channel, b"keys").pages.tobytes() == b"keys"


def fail(told: Any) -> None:
    raise RuntimeError("who waited cannot take this")


def test_who_fails_at_being_told_harms_nobody_else(
    channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    channel.call(job_of(b"1"), HELD, fail)
    assert ask(channel, b"2").pages.tobytes() == b"2"
    waiting, told = Channel("host-8"), SimpleQueue[Any]()
    for tell in (fail, told.put):
        waiting.call(job_of(b"k"), HELD, tell)
    waiting.close()
    assert type(told.get_nowait()) is ProcessGoneError
    assert [record.message for record in caplog.records] == [
        f"{name} told who waited, who failed: who waited cannot take this"
        for name in ("host-7", "host-8")
    ]


# Ends


def test_each_gets_an_error_of_its_own(closing: ExitStack) -> None:
    # What is raised keeps the frames that it went through, in which are keys.
    channel, told = Channel("host-7"), SimpleQueue[Any]()
    for number in range(2):
        channel.call(job_of(b"k", number), HELD, told.put)
    channel.close()
    errors = [told.get(), told.get(), ask(channel, b"k"), ask(channel, b"k")]
    assert len(set(map(id, errors))) == 4


def test_all_that_wait_are_told_of_the_end_of_the_process(
    channel: Channel, server: PassServer, shard: Shard
) -> None:
    begun, held = threading.Semaphore(0), threading.Event()

    def reply(job: Pass) -> Any:
        begun.release()
        held.wait()
        return np.zeros(1, np.uint8)

    shard.reply = reply
    told: SimpleQueue[Any] = SimpleQueue()
    for number in range(2):
        channel.call(job_of(b"k", number), HELD, told.put)
        begun.acquire()
    server.close()
    for error in (told.get(), told.get(), ask(channel, b"k")):
        assert type(error) is ProcessGoneError
        assert str(error) == "host-7 is gone: the connection has ended"
    held.set()


def test_who_waits_is_told_when_the_router_ends_the_process(channel: Channel, shard: Shard) -> None:
    begun, held = threading.Semaphore(0), threading.Event()

    def reply(job: Pass) -> Any:
        begun.release()
        held.wait()
        return np.zeros(1, np.uint8)

    shard.reply = reply
    told: SimpleQueue[Any] = SimpleQueue()
    channel.call(job_of(b"k"), HELD, told.put)
    begun.acquire()
    channel.close()
    channel.close("again")
    held.set()
    for error in (told.get(), ask(channel, b"k")):
        assert str(error) == "host-7 is gone: it was ended"
    assert told.empty()


def test_a_process_that_cannot_be_reached_is_gone(tls: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    channel = Channel("host-7")
    told: SimpleQueue[Any] = SimpleQueue()
    channel.call(job_of(b"k"), HELD, told.put)
    channel.ping(told.put)
    channel.connect(Address("127.0.0.1", port, SECRET))
    for _ in range(2):
        why = f"host-7 is gone: it cannot be reached at 127.0.0.1:{port}: "
        assert str(told.get()).startswith(why)


def test_a_router_without_threads_tells_who_waits(
    server: PassServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    channel, told = Channel("host-7"), SimpleQueue[Any]()
    channel.call(job_of(b"k"), HELD, told.put)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    channel.connect(server.address)
    assert str(told.get_nowait()) == (
        "host-7 is gone: no thread can take its answers: can't start new thread"
    )


# Who gets in


def test_a_router_without_the_secret_is_refused(server: PassServer, tls: dict[str, str]) -> None:
    address = server.address
    with pytest.raises(ConnectionError):
        Connection.to(address.host, address.port, bytes(32), tls_of_ray(tls, of_shard=False), 10.0)


def test_a_router_refuses_a_shard_without_the_secret(tls: dict[str, str]) -> None:
    # It says what a shard says, and sends back the router's own proof.
    channel = Channel("host-7")
    told: SimpleQueue[Any] = SimpleQueue()
    channel.call(job_of(b"keys of clients"), HELD, told.put)
    shard_tls = tls_of_ray(tls, of_shard=True)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        channel.connect(Address("127.0.0.1", listening.getsockname()[1], SECRET))
        accepted = listening.accept()[0]
        if shard_tls is not None:
            accepted = shard_tls.context.wrap_socket(accepted, server_side=True)
        with accepted:
            accepted.sendall(bytes(32))
            said = b""
            while len(said) < 64:
                said += accepted.recv(64 - len(said))
            accepted.sendall(said[32:])
            assert accepted.recv(1) == b""
    assert "the other end does not have this cluster's secret" in str(told.get())


def test_who_stands_between_cannot_pass_proofs_on(tmp_path: Path) -> None:
    """The authority has signed another's certificate, who speaks TLS with both ends."""
    environment = certificates(tmp_path / "shard")
    shard_tls, router_tls = (
        tls_of_ray(environment, of_shard=True),
        tls_of_ray(environment, of_shard=False),
    )
    assert shard_tls is not None
    other = Tls(shard_tls.context, b"the certificate that the router does not see", True)
    faults = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def take() -> None:
            try:
                Connection.of(listening.accept()[0], SECRET, other, 10.0)
            except OSError as error:
                faults.append(error)

        thread = threading.Thread(target=take)
        thread.start()
        with pytest.raises(ConnectionError):
            Connection.to("127.0.0.1", listening.getsockname()[1], SECRET, router_tls, 10.0)
        thread.join()
    assert isinstance(faults[0], ConnectionRefusedError)


@pytest.mark.parametrize("tls", ["tls"], indirect=True)
@pytest.mark.parametrize("stranger", ["plain", "of another authority"])
def test_who_has_no_certificate_of_the_authority_is_refused(
    server: PassServer, tmp_path: Path, stranger: str
) -> None:
    environment = {} if stranger == "plain" else certificates(tmp_path / "other")
    address = server.address
    with pytest.raises((ConnectionError, TimeoutError, ssl.SSLError)):
        Connection.to(
            address.host, address.port, address.secret, tls_of_ray(environment, of_shard=False), 0.1
        )


def test_no_secret_is_shown(server: PassServer) -> None:
    assert server.address.secret not in (b"", SECRET)
    assert len(server.address.secret) == 32
    assert repr(server.address) == f"Address(host='127.0.0.1', port={server.address.port})"
