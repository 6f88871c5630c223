"""What a user would otherwise write: the XOR of the selected pages in numpy."""

from __future__ import annotations

import numpy as np

from morphogen import dpf
from morphogen.bench.workload import Pages


def naive_numpy(pages: Pages, key: bytes) -> Pages:
    num_pages = len(pages)
    selection = dpf.eval_full(key, num_pages)
    mask = np.unpackbits(selection, count=num_pages, bitorder="little").astype(bool)
    answer: Pages = np.bitwise_xor.reduce(pages[mask], axis=0)
    return answer
