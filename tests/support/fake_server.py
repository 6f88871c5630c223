"""A server of pages over real sockets, which records its requests and misbehaves on demand."""

from __future__ import annotations

import socket
import ssl
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import numpy as np

import morphogen.wire as wire
from morphogen.authentication import Seal, seal_pages
from morphogen.authentication.hashing import HASH_BYTES
from morphogen.client import Client
from morphogen.wire import BatchResponse, TableInfo
from naive import Bytes, open_engine, random_pages
from server_faults import Fault, Reply, problem

PATIENCE = 30.0  # seconds until a test that waits for an event gives up


@dataclass(frozen=True)
class Seen:
    """One request as the server received it."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def shape(self) -> tuple[Any, ...]:
        """Return the request without the bytes of keys."""
        return self.method, self.path, self.headers, len(self.body)


@dataclass(frozen=True)
class Held:
    """One of the epochs that a server answers for.

    Attributes
    ----------
    manifest : str or None
        As /epoch states it.
    """

    epoch: int
    table: Bytes
    seal: Seal | None
    manifest: str | None = None

    @property
    def digest(self) -> str:
        return (
            sha256(self.table.tobytes()).hexdigest() if self.seal is None else self.seal.root.hex()
        )

    @property
    def proof_levels(self) -> int | None:
        if self.seal is None:
            return None
        levels = 0
        while -(-len(self.table) >> levels) > len(self.seal.cap):
            levels += 1
        return levels


class FakeServer:
    """One party over a table. Each fault is used for one request to its path, in order.

    With a seal, it states its root, and answers for its cap. Lies, unlike faults, last. It is a
    server of one epoch, as older ones are, until `publish` makes it one of several.
    """

    def __init__(
        self,
        table: Bytes,
        party: int,
        *,
        epoch: int = 7,
        layout: dict[str, Any] | None = None,
        seal: Seal | None = None,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self.party, self.layout = party, layout
        self.said: dict[str, Any] = {}  # replaces the true answers of /epoch
        self.seen: list[Seen] = []
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.lies: dict[str, Fault] = {}  # for all requests to a path
        self.asked = threading.Semaphore(0)  # counts the requests
        self.barrier: threading.Barrier | None = None
        self._released = threading.Event()
        self.table_changes = threading.Lock()  # no answer is of half a change
        self._connections: list[socket.socket] = []
        self._changed = threading.Condition()
        self._open = 0
        self.set_table(table, epoch, seal=seal)
        outer = self

        class Handler(_Handler):
            fake = outer

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        scheme = "http" if tls is None else "https"
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.port: int = self._http.server_address[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def set_table(
        self, table: Bytes, epoch: int | None = None, *, seal: Seal | None = None
    ) -> None:
        """Serve another table from now on."""
        with self.table_changes:
            self.held = [Held(self.epoch if epoch is None else epoch, table, seal)]
            self.lists_epochs = False

    def publish(
        self,
        table: Bytes,
        epoch: int,
        *,
        seal: Seal | None = None,
        manifest: str | None = None,
        keep: int = 2,
    ) -> None:
        """Serve one more epoch, and go on to answer for the last ones."""
        with self.table_changes:
            self.held = [Held(epoch, table, seal, manifest), *self.held][:keep]
            self.lists_epochs = True

    @property
    def current(self) -> Held:
        return self.held[0]

    @property
    def epoch(self) -> int:
        return self.current.epoch

    @property
    def table(self) -> Bytes:
        return self.current.table

    @property
    def seal(self) -> Seal | None:
        return self.current.seal

    @property
    def digest(self) -> str:
        return self.current.digest

    def info_of(self, held: Held) -> TableInfo:
        """Describe one of the epochs."""
        return TableInfo(
            party=self.party,
            epoch_id=held.epoch,
            num_pages=len(held.table),
            page_size=held.table.shape[1],
            keys_per_query=3,
            format_version=wire.FORMAT_VERSION,
            digest=held.digest,
            device="cpu",
            table=self.layout,
            root=None if held.seal is None else held.digest,
            proof_levels=held.proof_levels,
            manifest=held.manifest,
        )

    @property
    def info(self) -> TableInfo:
        infos = [self.info_of(held) for held in self.held]
        info = wire.with_epochs(infos) if self.lists_epochs else infos[0]
        return msgspec.structs.replace(info, **self.said)

    @property
    def batches(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == wire.QUERY_PATH]

    def then(self, *faults: Fault, path: str = wire.QUERY_PATH) -> None:
        """Apply these faults to the next answers of a path."""
        self.faults[path].extend(faults)

    def lie(self, fault: Fault, path: str = wire.QUERY_PATH) -> None:
        """Apply this fault to all answers of a path from now on."""
        self.lies[path] = fault

    def reply(self, seen: Seen) -> Reply:
        if seen.path == wire.EPOCH_PATH:
            return Reply(200, {"Content-Type": wire.JSON}, msgspec.json.encode(self.info))
        for held in self.held:
            if seen.path == wire.cap_path(held.epoch) and held.seal is not None:
                headers = {"Content-Type": "application/octet-stream", "ETag": f'"{held.digest}"'}
                return Reply(200, headers, held.seal.cap.tobytes())
        if seen.path != wire.QUERY_PATH:
            return problem(404)
        wanted = msgspec.msgpack.decode(seen.body).get("epoch_id")
        held = next((held for held in self.held if held.epoch == wanted), self.current)
        info = self.info if held is self.current else self.info_of(held)
        try:
            request = wire.decode_request(seen.body, wire.MSGPACK, info)
        except wire.WireConflictError as conflict:
            return problem(409, conflict.field)
        with open_engine(held.table) as engine:
            pages = engine.answer(request.queries).pages
        answer = BatchResponse(
            epoch_id=held.epoch, num_pages=len(held.table), digest=held.digest, pages=pages
        )
        headers = {"Content-Type": wire.MSGPACK}
        if self.lists_epochs:
            headers[wire.EPOCH_HEADER] = str(self.epoch)
        return Reply(200, headers, wire.encode_response(answer, wire.MSGPACK))

    def track(self, connection: socket.socket) -> None:
        self._connections.append(connection)

    def wait_until_idle(self) -> None:
        """Wait until no connection is open."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._open, PATIENCE)

    def opened(self, more: int) -> None:
        """Count the connections that are open."""
        with self._changed:
            self._open += more
            self._changed.notify_all()

    def wait_for_release(self) -> None:
        self._released.wait(PATIENCE)

    def close(self) -> None:
        self._released.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        for connection in self._connections:
            with suppress(OSError):  # the client has closed it first
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.fake.track(self.connection)
        self.fake.opened(1)

    def finish(self) -> None:
        self.fake.opened(-1)
        super().finish()

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        seen = Seen(self.command, self.path, tuple(self.headers.items()), body)
        self.fake.seen.append(seen)
        faults = self.fake.faults[seen.path]
        fault = faults.popleft() if faults else None  # before the next request can come
        self.fake.asked.release()
        if self.fake.barrier is not None and seen.path == wire.QUERY_PATH:
            self.fake.barrier.wait(PATIENCE)
        with self.fake.table_changes:
            reply = self.fake.reply(seen)
        if (lie := self.fake.lies.get(seen.path)) is not None:
            reply = lie(reply)
        if fault is not None:
            reply = fault(reply)
        if reply.cut == -1:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: reply.cut])
        self.wfile.flush()
        if reply.held:
            self.fake.wait_for_release()
        if reply.cut is not None:
            self.close_connection = True


def sealed_pages(
    num_pages: int = 50, page_size: int = 96, proof_levels: int = 2, layout: bytes = b""
) -> Seal:
    """Return a table of random pages that prove themselves."""
    contents = random_pages(num_pages, page_size - HASH_BYTES * proof_levels)
    return seal_pages(contents, page_size, proof_levels, layout)


@contextmanager
def two_servers(
    table: Bytes | None = None, *, seal: Seal | None = None, **options: Any
) -> Iterator[tuple[FakeServer, FakeServer]]:
    """Run party 0 and party 1 over equal tables."""
    if seal is not None:
        table = seal.pages
    pages = random_pages(50, 96) if table is None else table
    servers = [FakeServer(pages, party, seal=seal, **options) for party in (0, 1)]
    try:
        yield servers[0], servers[1]
    finally:
        for server in servers:
            server.close()


def keyword_table(entries: int = 200) -> tuple[Bytes, dict[str, Any], dict[bytes, bytes]]:
    """Return a small keyword table, its layout and its entries."""
    import morphogen.keyword as keyword

    items = {b"key %d" % i: b"value %d" % (i * i) for i in range(entries)}
    table, layout = keyword.build(items.items(), page_size=256, seed=bytes(range(16)))
    return np.ascontiguousarray(table), layout.as_dict(), items


def client(servers: tuple[FakeServer, FakeServer], **options: Any) -> Client:
    """Make a client that does not wait long between attempts."""
    options.setdefault("backoff", 0.001)
    options.setdefault("timeout", PATIENCE)
    return Client([server.url for server in servers], **options)
