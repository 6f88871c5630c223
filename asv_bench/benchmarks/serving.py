"""The costs of sharing and serving: the batcher, and a request to the service."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import morphogen as mg

from .rounds import clock, clock_cost, cost
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
    """The processor's time of two queries through the ASGI application, without a network."""
    from httpx import ASGITransport, AsyncClient

    from morphogen import wire
    from morphogen.service import create_app, describe_table

    body = wire.encode_request(make_batch(NUM_PAGES, 2, 3), epoch_id=0, num_pages=NUM_PAGES)
    headers = {"Content-Type": wire.MSGPACK}
    with open_engine(page_size=64) as engine, mg.MicroBatcher(engine) as batcher:
        app = create_app(batcher, describe_table(engine, party=0))
        transport = ASGITransport(app)  # type: ignore[arg-type] # its messages are typed closer
        client = AsyncClient(transport=transport, base_url="http://server")

        async def request() -> None:
            answer = await client.post(wire.QUERY_PATH, content=body, headers=headers)
            answer.raise_for_status()

        with asyncio.Runner() as runner:
            # Of the processor: how fast threads take turns is the system's.
            return clock_cost(clock(lambda: runner.run(request()), time.process_time))


track_cost_of_a_request.unit = "x a fixed loop"
