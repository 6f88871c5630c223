"""A small table on a server: its queries, the server's address, its problem documents."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar.types import ASGIApp

import morphogen as mg
from held_engine import HeldEngine
from morphogen.authentication import Seal, Tree
from morphogen.service import create_app, describe_table
from morphogen.service.limits import Limits
from morphogen.service.listener import bind, listen
from morphogen.service.metrics import Metrics
from morphogen.service.process import ServerProcess
from morphogen.service.server import Server
from morphogen.wire import QUERY_PATH
from naive import Bytes, open_engine, random_pages, random_rows

PAGES, PAGE_SIZE = 700, 48
EPOCH = 5
SECONDS = 30
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def table() -> Bytes:
    return random_pages(PAGES, PAGE_SIZE)


@pytest.fixture(scope="module")
def file(table: Bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("service") / "pages.bin"
    table.tofile(path)
    return path


OPTIONS = ("--page-size", str(PAGE_SIZE), "--epoch", str(EPOCH), "--device", "cpu")


@pytest.fixture(scope="module")
def servers(file: Path) -> Iterator[list[ServerProcess]]:
    with ServerProcess(file, 0, OPTIONS) as zero, ServerProcess(file, 1, OPTIONS) as one:
        yield [zero, one]


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=SECONDS) as client:
        yield client


def some_queries(total: int, party: int = 0, seed: int = 0) -> list[mg.Query]:
    return mg.make_queries(random_rows(total, 3, PAGES, seed), PAGES)[party]


def ask(http: httpx.Client, url: str, body: Any, kind: str, path: str = QUERY_PATH) -> Any:
    return http.post(url + path, content=body, headers={"Content-Type": kind})


def problem(response: httpx.Response, status: int, field: str = "") -> dict[str, Any]:
    """Check a problem document and return it."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == PROBLEM
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document.get("field", "") == field
    return document


class LiveServer:
    """Serve an application on a socket, on a thread of this process."""

    def __init__(self, app: ASGIApp, limits: Limits | None = None) -> None:
        limits = (limits or Limits()).with_answers_of(0)
        self.listener = bind("127.0.0.1", 0)
        listen(self.listener)
        self.address: tuple[str, int] = self.listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.server = Server(app, limits)
        self.connections = self.server.add(self.listener, limits, None)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def stop(self) -> None:
        """Ask it to stop, without waiting for that."""
        self.server.should_exit = True

    def join(self) -> None:
        """Stop it. The application's shutdown has ended then."""
        self.stop()
        self.thread.join(SECONDS)
        self.listener.close()


class LiveApp(LiveServer):
    """Serve one table over an engine that a test can hold."""

    def __init__(
        self,
        table: Bytes,
        *,
        party: int = 0,
        max_wait: float = SECONDS,
        drain_seconds: float = SECONDS,
        limits: Limits | None = None,
        seal: Seal | None = None,
        **options: Any,
    ) -> None:
        self.engine = HeldEngine(open_engine(mg.PageMatrix(table, EPOCH), threads=1), 2)
        self.batcher = mg.MicroBatcher(self.engine, **options)
        tree = None if seal is None else Tree(seal.cap, seal.root)
        self.info = describe_table(self.engine, party, tree=tree)
        self.metrics = Metrics()
        app = create_app(
            self.batcher,
            self.info,
            cap=None if seal is None else seal.cap.data,
            max_wait=max_wait,
            drain_seconds=drain_seconds,
            metrics=self.metrics,
            trusted_proxies=(limits or Limits()).trusted_proxies,
            hold_seconds=0,
        )
        super().__init__(app, limits)

    def __enter__(self) -> LiveApp:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.held.set()
        self.join()
        self.batcher.close()
        self.engine.close()


@pytest.fixture
def live(table: Bytes) -> Iterator[LiveApp]:
    with LiveApp(table, max_queued=4) as app:
        yield app
