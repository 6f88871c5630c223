"""Memory of a server, and bytes that a query sends."""

from morphogen import PageMatrix, make_query
from morphogen.engine.cpu import CpuEngine
from morphogen.workload import random_pages, random_queries

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
