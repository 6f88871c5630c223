"""Queries that skipped their constructor's checks, as an attacker's process would make them."""

from __future__ import annotations

from typing import Any

import morphogen as mg

NUM_PAGES = 1500  # n = 11, two tree levels, 144 bytes


def forged(*keys: Any) -> mg.Query:
    return forged_holding(keys)


def forged_holding(keys: Any) -> mg.Query:
    """Return a query whose `keys` is this object, whatever it is."""
    query = mg.make_query([0], NUM_PAGES)[0]
    object.__setattr__(query, "keys", keys)
    return query
