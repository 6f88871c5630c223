"""The hashes of leaves and of nodes, and the levels of a tree above others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from morphogen.authentication.sha256 import (
    climb as climb,
    hash_leaves as hash_leaves,
    hash_pairs as hash_pairs,
    hash_path as hash_path,
    lead_to_cap as lead_to_cap,
)

Bytes = npt.NDArray[np.uint8]

HASH_BYTES = 32


def even(level: Bytes) -> Bytes:
    """Return a level with an even number of nodes: one that covers no page is zero."""
    return level if len(level) % 2 == 0 else np.pad(level, ((0, 1), (0, 0)))
