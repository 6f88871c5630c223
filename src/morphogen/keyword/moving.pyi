# Made by tools/release/make_stubs.py from the module's source.
"""Place entries in a keyword table that has others, which move only where they must.

An entry takes a free slot of a candidate page. Where there is none, it takes that of an entry which
moves to another of its own candidates, and so on: the chain that touches the fewest pages is found
by a breadth-first search over pages, in which a page costs nothing if it is touched anyway.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from morphogen.keyword.entries import Entries

def place_more(
    entries: Entries,
    added: npt.NDArray[np.uint32],
    slots_per_page: int,
    owners: npt.NDArray[np.uint32],
    touched: npt.NDArray[np.uint8],
    progress: Callable[[int, int], object] | None = None,
) -> int | None:
    """Place entries beside those that have a slot.

    Parameters
    ----------
    entries : Entries
        With the table's seed set.
    added : numpy.ndarray
        uint32: the entries that have no slot yet.
    slots_per_page : int
        The table's.
    owners : numpy.ndarray
        uint32 (num_pages * slots_per_page,): the entry of each slot, plus 1; 0 where it is free.
        Changed in place.
    touched : numpy.ndarray
        uint8 (num_pages,): 1 for each page that changes anyway. Changed in place.
    progress : callable, optional
        Called with the entries that are placed, and all of them.

    Returns
    -------
    int or None
        How many others moved. None if an entry finds no place, or only after too long a search: the
        table is too full.

    Raises
    ------
    ValueError
        If an array has another shape, or a number of an entry is out of range.
    MemoryError
        If there is no memory for the search.
    """
