"""A shard's process takes passes and connections in, whatever becomes of some of them."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from connections import HELD, Shard, ask, channel, closing, job_of, server, shard, tls
from morphogen.cluster import pass_server
from morphogen.cluster.channel import Channel
from morphogen.cluster.pass_server import PassServer
from morphogen.engine.shards.transport import Pass

__all__ = ["channel", "closing", "server", "shard", "tls"]


def test_a_process_takes_passes_in_that_wait_for_those_that_run(
    channel: Channel, shard: Shard
) -> None:
    """Else the router could not send them, and would take the process for a stopped one."""
    begun, held = threading.Semaphore(0), threading.Event()

    def reply(job: Pass) -> Any:
        begun.release()
        held.wait()
        return np.frombuffer(job.keys[:1], np.uint8)

    shard.reply = reply
    told: SimpleQueue[Any] = SimpleQueue()
    for number in range(64):  # of more bytes than fit between the two
        channel.call(job_of(bytes([number]) * (1 << 20), number), HELD, told.put)
    for _ in range(4):
        begun.acquire()
    assert told.empty()
    assert not begun.acquire(blocking=False)  # four run at a time
    life: SimpleQueue[Any] = SimpleQueue()
    channel.ping(life.put)
    assert life.get() == os.getpid()  # a sign of life waits for none of them
    held.set()
    assert sorted(told.get().pages.item() for _ in range(64)) == list(range(64))


def test_a_process_that_cannot_answer_ends_the_connection(
    server: PassServer, shard: Shard, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(channel, b"k").pages.tobytes() == b"k"

    def fail(*unused: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(pass_server, "pack_outcome", fail)
        assert str(ask(channel, b"k")) == "host-7 is gone: the connection has ended"
    another = Channel("host-7")
    another.connect(server.address)
    assert ask(another, b"k").pages.tobytes() == b"k"
    another.close()


@pytest.mark.parametrize("refused", ["morphogen-greet", "morphogen-pass"])
def test_a_process_without_threads_takes_connections_when_it_has_some_again(
    server: PassServer, closing: ExitStack, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == refused:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        first = Channel("host-7")
        first.connect(server.address)
        assert str(ask(first, b"k")).startswith("host-7 is gone: ")
    second = Channel("host-7")
    closing.callback(second.close)
    second.connect(server.address)
    assert ask(second, b"k").pages.tobytes() == b"k"


def test_strangers_do_not_keep_a_router_out(
    server: PassServer, closing: ExitStack, channel: Channel
) -> None:
    assert ask(channel, b"1").pages.tobytes() == b"1"
    host, port = server.address.host, server.address.port
    for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(4096)):
        for _ in range(20):
            stranger = closing.enter_context(socket.create_connection((host, port)))
            stranger.sendall(sent)
    assert ask(channel, b"2").pages.tobytes() == b"2"
