"""The bytes that a client and a server exchange for a batch, as MessagePack."""

from __future__ import annotations

import numpy as np

from benchmarks.scan import make_batch

NUM_PAGES, PAGE_SIZE = 2**25, 4_096


def count_all() -> dict[str, dict[str, float]]:
    """Count the bytes of a request and of its answer, by the number of queries."""
    try:
        from morphogen import wire
    except ImportError as error:
        raise NotImplementedError("needs the extra client") from error

    found: dict[str, dict[str, float]] = {}
    for queries in (1, 2, 32):
        batch = make_batch(NUM_PAGES, queries, 3)
        pages = np.zeros((queries, 3, PAGE_SIZE), dtype=np.uint8)
        answer = wire.BatchResponse(epoch_id=1, num_pages=NUM_PAGES, digest="0" * 64, pages=pages)
        found[f"{queries} x 3"] = {
            "request bytes": len(wire.encode_request(batch, epoch_id=1, num_pages=NUM_PAGES)),
            "answer bytes": len(wire.encode_response(answer, wire.MSGPACK)),
        }
    return found
