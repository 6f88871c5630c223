"""Memory of a server, and bytes that a query sends and gets."""

from __future__ import annotations

import importlib.util

import numpy as np

from morphogen import PageMatrix, make_query
from morphogen.bench.workload import random_pages, random_queries
from morphogen.engine.cpu import CpuEngine

NUM_PAGES, PAGE_SIZE = 16_384, 4_096


def peakmem_table() -> None:
    """The 64 MiB of pages alone, to compare with."""
    random_pages(NUM_PAGES, PAGE_SIZE, seed=0)


def peakmem_answer_32_queries() -> None:
    pages = PageMatrix(random_pages(NUM_PAGES, PAGE_SIZE, seed=0))
    with CpuEngine(pages, threads=1) as engine:
        engine.answer(random_queries(NUM_PAGES, 32, 3, seed=1))


class KeyBytes:
    params = (2**10, 2**16, 2**25)
    param_names = ("pages",)

    def track_key_bytes_a_query(self, pages: int) -> int:
        query, _ = make_query((0, pages // 3, pages - 1), pages)
        return sum(map(len, query.keys))

    track_key_bytes_a_query.unit = "bytes to each server"


class AnswerBytes:
    params = (1, 2, 32)
    param_names = ("queries",)

    def track_answer_bytes(self, queries: int) -> int:
        pages = PageMatrix(random_pages(64, PAGE_SIZE, seed=0))
        with CpuEngine(pages, threads=1) as engine:
            return engine.answer(random_queries(64, queries, 3, seed=1)).pages.nbytes

    track_answer_bytes.unit = "bytes from each server"


class Messages:
    """The bodies that a client and a server exchange, as MessagePack."""

    params = (1, 2, 32)
    param_names = ("queries",)

    def setup(self, queries: int) -> None:
        if importlib.util.find_spec("msgspec") is None:
            raise NotImplementedError("needs the extra client")

    def track_request_bytes(self, queries: int) -> int:
        import morphogen.wire as wire

        batch = random_queries(2**25, queries, 3, seed=1)
        return len(wire.encode_request(batch, epoch_id=1, num_pages=2**25))

    track_request_bytes.unit = "bytes to each server"

    def track_response_bytes(self, queries: int) -> int:
        import morphogen.wire as wire

        pages = np.zeros((queries, 3, PAGE_SIZE), dtype=np.uint8)
        response = wire.BatchResponse(epoch_id=1, num_pages=2**25, digest="0" * 64, pages=pages)
        return len(wire.encode_response(response, wire.MSGPACK))

    track_response_bytes.unit = "bytes from each server"
