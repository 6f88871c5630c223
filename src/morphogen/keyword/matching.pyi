# Made by tools/release/make_stubs.py from the module's source.
"""Which slot of a keyword table belongs to which entry of the rows that it is to hold next.

A table has no keys: the check of a slot tells its entry. A slot whose check no entry has is free.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from morphogen.keyword.entries import Entries

MAX_MATCHED: int

def match_entries(
    entries: Entries,
    pages: npt.NDArray[np.uint8],
    slots_per_page: int,
    owners: npt.NDArray[np.uint32],
    touched: npt.NDArray[np.uint8],
    *,
    mask: int = 18446744073709551615,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[npt.NDArray[np.uint32], int, int] | None:
    """Find the slot of each entry that the table has.

    Parameters
    ----------
    entries : Entries
        With the table's seed set.
    pages : numpy.ndarray
        uint8 (num_pages, page_size): the table as it is.
    slots_per_page : int
        The table's.
    owners : numpy.ndarray
        uint32 (num_pages * slots_per_page,): receives the entry of each slot, plus 1; 0 for a slot
        that is free, or was that of an entry which is no more.
    touched : numpy.ndarray
        uint8 (num_pages,): receives a 1 for each page of which a slot changes or becomes free.
    mask : int, optional
        For tests: the bits of both halves of a check that are compared.
    progress : callable, optional
        Called with the entries that are looked for, and all of them.

    Returns
    -------
    added : numpy.ndarray
        uint32: the entries that the table does not have, ascending.
    changed : int
        Entries whose slot has another value.
    freed : int
        Slots in use that no entry has.

    None if two keys have the same check, so that this seed will not do.

    Raises
    ------
    TableBuildError
        If two rows have the same key.
    ValueError
        If an array has another shape, the slots do not fit a page, or slots and entries are more
        than `MAX_MATCHED` together.
    MemoryError
        If there is no memory for the comparison.
    """
