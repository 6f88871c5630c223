"""What sharing and serving add to an engine: the batcher, and a request through the service."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import morphogen as mg

from .rounds import cost
from .scan import make_batch

NUM_PAGES = 1_024
WIDTH = 2  # the GPU's


def open_engine(page_size: int) -> mg.Engine:
    pages = np.ones((NUM_PAGES, page_size), dtype=np.uint8)
    return mg.open_engine(mg.PageMatrix(pages), device="cpu", threads=1)


def track_cost_of_a_lone_query() -> float:
    """From `submit` to the answer, on a table so small that the batcher's own time shows."""
    (query,) = make_batch(NUM_PAGES, 1, 3)
    with open_engine(page_size=64) as engine, mg.MicroBatcher(engine) as batcher:
        return cost(lambda: batcher.submit(query).result())


track_cost_of_a_lone_query.unit = "x a fixed loop"


def track_cost_of_chunks_under_load() -> float:
    """The passes that 8 callers at a time need, of the fewest that they could."""
    callers, calls = 8, 50
    (query,) = make_batch(NUM_PAGES, 1, 3)

    def call() -> None:
        for _ in range(calls):
            batcher.submit(query).result()

    # A pass over 16 MiB takes long enough for others to arrive.
    with open_engine(page_size=16_384) as engine:
        batcher = mg.MicroBatcher(engine, max_micro_batch=WIDTH)
        with batcher, ThreadPoolExecutor(callers) as pool:
            for done in [pool.submit(call) for _ in range(callers)]:
                done.result()
            return WIDTH / batcher.statistics().mean_chunk_size


track_cost_of_chunks_under_load.unit = "x the fewest passes"


def track_cost_of_a_request() -> float:
    """Two queries through the ASGI application, without a network."""
    from morphogen import wire
    from morphogen.service import create_app, describe_table

    body = wire.encode_request(make_batch(NUM_PAGES, 2, 3), epoch_id=0, num_pages=NUM_PAGES)
    headers = [(b"content-type", wire.MSGPACK.encode()), (b"content-length", b"%d" % len(body))]
    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http"},
        **{"method": "POST", "path": wire.QUERY_PATH, "raw_path": wire.QUERY_PATH.encode()},
        **{"root_path": "", "query_string": b"", "headers": headers},
        **{"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)},
    }
    statuses = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    with open_engine(page_size=64) as engine, mg.MicroBatcher(engine) as batcher:
        app = create_app(batcher, describe_table(engine, party=0))
        with asyncio.Runner() as runner:
            found = cost(lambda: runner.run(app(dict(scope), receive, send)))
    if set(statuses) != {200}:
        raise RuntimeError(f"statuses {set(statuses)}")
    return found


track_cost_of_a_request.unit = "x a fixed loop"
