"""Connections that ask for much, or keep a server waiting, in a process of their own."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

import numpy as np

import morphogen as mg
import morphogen.wire as wire

CROWDS = ("idle crowd", "slow crowd", "deaf crowd")
BODIES = 4  # of the greedy ones' requests
READ_AHEAD_BYTES = 1 << 20
PAUSE = 0.2  # before a connection that was turned away comes back


@dataclass(frozen=True)
class Crowd:
    """Connections to both servers, by turns; ``requests`` and right ``answers`` are by server."""

    kind: str
    urls: tuple[str, ...]
    connections: int
    addresses: int
    requests: tuple[tuple[bytes, ...], ...] = ()
    answers: tuple[tuple[bytes, ...], ...] = ()

    async def connect(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        at = urlsplit(self.urls[number % len(self.urls)])
        home = number // len(self.urls) % self.addresses
        source = (f"127.0.{1 + home // 250}.{1 + home % 250}", 0)
        # A whole answer fits: reading it costs this machine little. A real crowd is on others.
        return await asyncio.open_connection(
            at.hostname, at.port, local_addr=source, limit=READ_AHEAD_BYTES
        )

    async def sit(self, number: int, counts: Counter[str]) -> None:
        """Hold a connection open: send nothing, or read nothing, or send a head byte by byte."""
        reader, writer = await self.connect(number)
        try:
            if self.kind == "deaf crowd":
                writer.write(self.requests[number % len(self.urls)][0])
                await asyncio.Event().wait()
            if self.kind == "idle crowd":
                await reader.read()
            while not reader.at_eof():
                writer.write(b"G")
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1024), 1)
        finally:
            writer.close()

    async def ask(self, number: int, counts: Counter[str]) -> None:
        """Send one batch after the other, and compare the answers."""
        server = number % len(self.urls)
        reader, writer = await self.connect(number)
        try:
            while True:
                at = number // len(self.urls) % len(self.requests[server])
                writer.write(self.requests[server][at])
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(size)
                if (status := head.split(None, 2)[1]) == b"200":
                    counts["right" if body == self.answers[server][at] else "wrong"] += 1
                else:
                    refused = status in (b"429", b"503") and b"\r\nretry-after:" in head
                    counts["refused" if refused else "wrong"] += 1
        finally:
            writer.close()

    async def member(self, number: int, counts: Counter[str]) -> None:
        act = self.ask if self.kind == "greedy crowd" else self.sit
        while True:
            counts["connections"] += 1
            with suppress(OSError, asyncio.IncompleteReadError):
                await act(number, counts)
            await asyncio.sleep(PAUSE)

    async def run(self, control: Connection) -> None:
        counts: Counter[str] = Counter()
        members = [asyncio.create_task(self.member(at, counts)) for at in range(self.connections)]
        while counts["connections"] < self.connections:
            await asyncio.sleep(0)
        control.send(None)
        await asyncio.to_thread(control.recv)
        for member in members:
            member.cancel()
        for ended in await asyncio.gather(*members, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                counts["wrong"] += 1  # an answer that could not even be read
        control.send(dict(counts))


def crowd_process(crowd: Crowd, control: Connection) -> None:
    raise_open_files()
    asyncio.run(crowd.run(control))


def raise_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@asynccontextmanager
async def beside(crowd: Crowd | None, counts: dict[str, int]) -> AsyncIterator[None]:
    """Have a crowd there meanwhile, and count what became of its requests."""
    if crowd is None:
        yield
        return
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=crowd_process, args=(crowd, there), daemon=True)
    process.start()
    await asyncio.to_thread(here.recv)
    try:
        yield
    finally:
        here.send(None)
        counts.update(await asyncio.to_thread(here.recv))
        process.join()


def make_crowds(
    pages: Any, urls: Sequence[str], digest: str, *, idle: int, greedy: int, addresses: int
) -> dict[str, Crowd]:
    """Make the crowds; the greedy one with its requests, and what the answers have to be."""
    random = np.random.default_rng(1)
    rows = random.integers(len(pages), size=(BODIES, wire.MAX_QUERIES, 3))
    halves = [mg.make_queries(batch, len(pages)) for batch in rows]
    requests: list[tuple[bytes, ...]] = []
    answers: list[tuple[bytes, ...]] = []
    with mg.open_engine(mg.PageMatrix(pages), "cpu") as engine:
        for party, url in enumerate(urls):
            bodies = [wire.encode_request(half[party], num_pages=len(pages)) for half in halves]
            head = (
                f"POST {wire.QUERY_PATH} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
                f"Content-Type: {wire.MSGPACK}\r\nContent-Length: "
            )
            requests.append(tuple(f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies))
            told = [
                wire.BatchResponse(
                    epoch_id=0,
                    num_pages=len(pages),
                    digest=digest,
                    pages=engine.answer(half[party]).pages,
                )
                for half in halves
            ]
            answers.append(tuple(wire.encode_response(answer, wire.MSGPACK) for answer in told))
    told_to_all = (tuple(requests), tuple(answers))
    crowds = [Crowd(kind, tuple(urls), idle, 8, *told_to_all) for kind in CROWDS]
    crowds.append(Crowd("greedy crowd", tuple(urls), greedy, addresses, *told_to_all))
    return {crowd.kind: crowd for crowd in crowds}
